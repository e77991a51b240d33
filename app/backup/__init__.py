"""Backups: a data folder's registry, encoders, datasets and passages of one moment in one file; back, and looked at."""
