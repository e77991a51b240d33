"""Passages as lines of JSON, any number of them: stored batch by batch while the rest is still on its way."""

from app.intake.batches import BATCH_LINES
from app.intake.stream import MAX_STREAMS, Intake

__all__ = ["BATCH_LINES", "MAX_STREAMS", "Intake"]
