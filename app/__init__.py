"""Adiabat: dense retrieval whose query encoder can be swapped while it serves."""

__version__ = "0.1.0"
