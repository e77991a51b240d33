"""The check that every text to be embedded as a query passes."""

from app.errors import InvalidField
from app.ingest import check_unicode
from app.settings import Settings


def check_query(field: str, text: str, settings: Settings) -> None:
    """Raises `InvalidField` naming `field`."""
    limit = settings.max_query_chars
    if not text.strip():
        raise InvalidField(field, "is empty; send the words to search for.")
    if len(text) > limit:
        raise InvalidField(field, f"has {len(text)} characters, the limit is {limit} (ADIABAT_MAX_QUERY_CHARS).")
    check_unicode(field, text)
