"""Passages read from files: JSONL, CSV, Parquet. Each comes with the place it was read from."""

from app.corpus.files import Format, count, read_files
from app.corpus.line import BadLine, Line, OnBad

__all__ = ["BadLine", "Format", "Line", "OnBad", "count", "read_files"]
