"""The background trainer: tunes query encoders, measures them and publishes them. It knows no web."""
