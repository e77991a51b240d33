"""Encoders: their files, identity, graphs and engines, and which of them is active."""
