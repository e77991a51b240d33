"""The lexical side: the words of passages and queries as sparse vectors of Qdrant's BM25, the same for both adapters.

A passage is cut, stemmed and cleared of stopwords by the rules of its `metadata.lang`; where there are none for it, or
no `lang`, it is only cut (with a segmenter for scripts without spaces). The languages' terms are kept apart: a query,
whose language nobody has to know, is read by every language's rules at once and meets each passage by that passage's.
No encoder has a part in any of it.
"""

import hashlib
import re
from collections.abc import Iterable
from functools import cache, lru_cache
from itertools import islice
from typing import Any, NamedTuple

import qdrant_edge as edge

from app.passages.store import Passage

LEXICAL = "lexical"
FORMAT = 1  # recorded beside a collection; the terms of another format are other numbers

# Those that Qdrant has both stopwords and a stemmer for.
LANGUAGES = {
    "ar": "arabic",
    "da": "danish",
    "de": "german",
    "el": "greek",
    "en": "english",
    "es": "spanish",
    "fi": "finnish",
    "fr": "french",
    "hu": "hungarian",
    "it": "italian",
    "nb": "norwegian",
    "nl": "dutch",
    "nn": "norwegian",
    "no": "norwegian",
    "pt": "portuguese",
    "ro": "romanian",
    "ru": "russian",
    "sv": "swedish",
    "tr": "turkish",
}
RULES = tuple(dict.fromkeys(LANGUAGES.values()))
NEUTRAL = ""
# A query is in a language by so many of its stopwords, and so large a share of its words: one alone may be a word of
# another, as in "die hard" or "vitamin e".
FEWEST, SPOKEN = 2, 0.25
LONGEST = 32  # letters of a stopword
LOOKED_AT = 64  # words
WORD = re.compile(r"[^\W_]+")
MISSING = (
    "The modes lexical and hybrid search the passages' words, and this collection was made before words were kept: "
    "stop the service and run `adiabat store add-lexical`, which reads them from the stored texts and embeds nothing "
    "again. Mode dense needs none of it."
)


class Terms(NamedTuple):
    """A sparse vector: rising numbers of terms and the weight of each."""

    indices: list[int]
    values: list[float]


def language_of(metadata: dict[str, Any]) -> str:
    """The rules that a passage with this metadata is read by: `de` of "de", "de-AT" and "DE_at", else none."""
    lang = metadata.get("lang")
    code = lang.lower().replace("_", "-").partition("-")[0] if isinstance(lang, str) else ""
    return LANGUAGES.get(code, NEUTRAL)


def passage_terms(passage: Passage) -> Terms:
    language = language_of(passage.metadata)
    text = f"{passage.title}\n{passage.text}" if passage.title else passage.text
    return _sorted(_terms(_reader(language).embed_document(text), language))


def query_terms(text: str) -> Terms:
    """Every language's terms, each with weight 1; without the stopwords of the language that the query seems to be in.

    By another language's rules those would be words, and rare ones: "what are the" would find what holds an English
    title among passages in German before anything English.
    """
    if spoken := _language_of_query(text):
        telling = WORD.sub(lambda word: "" if _is_stopword(word[0], spoken) else word[0], text)
        text = telling if WORD.search(telling) else text
    found: dict[int, float] = {}
    for language in (NEUTRAL, *RULES):
        found |= _terms(_reader(language).embed_query(text), language)
    return _sorted(found)


def _language_of_query(text: str) -> str | None:
    """That with the most stopwords in it, where they are a good part of its words."""
    words = [word[0] for word in islice(WORD.finditer(text), LOOKED_AT)]
    counts = {language: sum(_is_stopword(word, language) for word in words) for language in RULES}
    most = max(counts, key=lambda language: counts[language])
    return most if counts[most] >= max(FEWEST, SPOKEN * len(words)) else None


def _is_stopword(word: str, language: str) -> bool:
    return len(word) <= LONGEST and _says_nothing(word.lower(), language)


@lru_cache(maxsize=2**16)
def _says_nothing(word: str, language: str) -> bool:
    return not _reader(language).embed_query(word).indices


def highlights(query: str, passages: Iterable[Passage]) -> list[list[tuple[int, int]]]:
    """Where in each passage's text the query's words are, by the passage's rules: [start, end), in characters.

    Scripts without spaces between words have none: what they are cut into has no places.
    """
    asked = set(query_terms(query).indices)
    known: dict[tuple[str, str], bool] = {}

    def is_asked(word: str, language: str) -> bool:
        if (word, language) not in known:
            terms = _terms(_reader(language).embed_query(word), language)
            known[word, language] = len(terms) == 1 and not asked.isdisjoint(terms)
        return known[word, language]

    return [
        [found.span() for found in WORD.finditer(passage.text) if is_asked(found[0], language_of(passage.metadata))]
        for passage in passages
    ]


@cache
def _reader(language: str) -> "edge.Bm25":
    if language:
        return edge.Bm25(edge.Bm25Config(language=language))
    return edge.Bm25(
        edge.Bm25Config(
            tokenizer=edge.TokenizerType.Multilingual, stopwords=edge.StopwordsSet(), stemmer=edge.DisabledStemmer()
        )
    )


@cache
def _apart(language: str) -> int:
    """What a term's number is mixed with, so that one language's stem is not another's word. Never change it."""
    return int.from_bytes(hashlib.blake2b(language.encode(), digest_size=4).digest()) if language else 0


def _terms(vector: "edge.SparseVector", language: str) -> dict[int, float]:
    apart = _apart(language)
    return {index ^ apart: value for index, value in zip(vector.indices, vector.values, strict=True)}


def _sorted(terms: dict[int, float]) -> Terms:
    indices = sorted(terms)
    return Terms(indices, [terms[index] for index in indices])
