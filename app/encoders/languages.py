"""What an encoder's card says of each language: its figures on the questions of dev and guards that name theirs."""

import re
from contextlib import suppress

from pydantic import BaseModel, Field, ValidationError

from app.encoders.routes import primary_subtag
from app.errors import Conflict
from app.registry import EncoderRecord
from app.wire.routes import LANGUAGE, LanguageFigures, Mrr


class _Set(BaseModel):
    """Of the metrics that a tuning leaves; a file from elsewhere may hold anything there."""

    languages: dict[str, LanguageFigures] = Field(default_factory=dict)


def worse_languages(record: EncoderRecord) -> dict[str, LanguageFigures]:
    """By primary subtag, those in which it finds less than the base, in the mean over all questions of its card.

    However little: a card has no interval for a language, and one that stays on the base forgoes a gain at most that
    nobody has seen. Raises `Conflict` where the card tells no language.
    """
    told = _by_language(record)
    if not told:
        raise Conflict(
            f"The card of {record.key} has no figures by language: it was not tuned by this service, or the questions "
            "it was measured on do not name theirs (metadata.lang). Name in base_languages what is to stay on the base."
        )
    return {lang: figures for lang, figures in sorted(told.items()) if figures.mrr.after < figures.mrr.before}


def _by_language(record: EncoderRecord) -> dict[str, LanguageFigures]:
    guards = record.metrics.get("guards")
    found: dict[str, list[LanguageFigures]] = {}
    for said in (record.metrics.get("dev"), *(guards.values() if isinstance(guards, dict) else ())):
        with suppress(ValidationError):
            for lang, figures in _Set.model_validate(said).languages.items():
                found.setdefault(primary_subtag(lang), []).append(figures)
    return {lang: _together(parts) for lang, parts in found.items() if re.fullmatch(LANGUAGE, lang)}


def _together(parts: list[LanguageFigures]) -> LanguageFigures:
    """Every question counts once."""
    queries = sum(each.queries for each in parts)
    before, after = (
        sum(each.queries * getattr(each.mrr, side) for each in parts) / queries for side in ("before", "after")
    )
    return LanguageFigures(queries=queries, mrr=Mrr(before=before, after=after))
