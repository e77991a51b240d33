"""Every error the product raises on purpose. Leaves know no HTTP; `app.api.problems` maps classes to statuses.

    AdiabatError
    ├── BadInput                 what was given cannot be used
    │   ├── InvalidField         ... and this field is why
    │   ├── UnsupportedFilter    a filter condition that cannot be served
    │   ├── BadDataset           a dataset that is not in BEIR shape
    │   ├── IdempotencyKeyReused the key came before with another body
    │   └── SourceRefused        a path, hub name or archive that may not be read
    ├── NotFound
    │   ├── EncoderNotFound, PassageNotFound, JobNotFound, DatasetNotFound, EvaluationNotFound,
    │   └── JudgmentNotFound, KeyNotFound, SearchNotFound, ExperimentNotFound, RouteNotFound
    ├── Conflict                 the request and the state of things disagree
    │   ├── EncoderRefused       admission says no
    │   ├── EncoderBroken        an artifact that cannot be loaded or verified
    │   ├── EncoderNotResident   an encoder that is named, but not in memory and may not be loaded
    │   ├── EncoderInUse         deletion of something somebody needs
    │   ├── IndexSpaceMismatch   the stored vectors mean something else
    │   ├── NoLexicalSide        a search by words where only vectors are kept
    │   ├── JobFinished          cancel of a job that has ended
    │   ├── JobNotResumable      resume of a job that was not interrupted
    │   ├── DatasetInUse         deletion of what an unfinished job reads
    │   ├── DatasetBuiltIn       a dataset that the service itself keeps
    │   ├── SearchNotLogged      feedback for a search that was never meant to be kept
    │   ├── KeyExists            a key of that name
    │   ├── LastAdminKey         without it nobody could make keys any more
    │   └── IdempotencyKeyInUse  the first request with the key is still running
    ├── StaleGeneration          compare-and-set lost
    ├── TooLarge                 over a limit
    │   └── HeadersTooLarge      ... before the body begins
    ├── TooSlow                  a request that trickles
    ├── Unauthorized             no key, or a wrong one
    ├── MissingScope             a key that may not do this
    ├── CrossSite                a write that a page of another origin made a browser send
    ├── Overloaded               no permit free
    │   ├── RateLimited          a key's requests come faster than it may
    │   └── QuotaExceeded        a key's requests of a day are used up
    ├── TuningFailed             a tuning that made no usable encoder
    └── Unavailable              a part that is needed does not answer
        └── DataDirLocked        another process holds the data folder

An exception carries one sentence for a stranger: what was given, what was expected, what mends it.
Its class docstring is the default; `slug` is the stable name that clients may match on.
"""

from typing import Any, ClassVar, Self


class AdiabatError(Exception):
    """Something went wrong."""

    slug: ClassVar[str] = "error"

    def __init__(self, detail: str | None = None, **data: Any) -> None:
        self.detail = detail or (type(self).__doc__ or "").strip()
        self.data = data
        super().__init__(self.detail)


class BadInput(AdiabatError):
    """The request cannot be used as it is."""

    slug = "bad-input"


class InvalidField(BadInput):
    """A field has a value that cannot be used."""

    slug = "invalid-field"

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}", field=field, errors=[{"field": field, "problem": problem}])


class UnsupportedFilter(BadInput):
    """The filter has a condition that cannot be served."""

    slug = "unsupported-filter"


class BadDataset(BadInput):
    """The dataset is not in BEIR shape."""

    slug = "bad-dataset"


class SourceRefused(BadInput):
    """This source may not be read."""

    slug = "source-refused"


class IdempotencyKeyReused(BadInput):
    """The Idempotency-Key came before with another body."""

    slug = "idempotency-key-reused"


class NotFound(AdiabatError):
    """There is nothing of that name."""

    slug = "not-found"


class EncoderNotFound(NotFound):
    """No encoder of that name and version is registered."""

    slug = "encoder-not-found"


class PassageNotFound(NotFound):
    """No passage has that id."""

    slug = "passage-not-found"


class JobNotFound(NotFound):
    """No tuning job has that id."""

    slug = "job-not-found"


class DatasetNotFound(NotFound):
    """No dataset has that name."""

    slug = "dataset-not-found"


class EvaluationNotFound(NotFound):
    """No evaluation has that id."""

    slug = "evaluation-not-found"


class JudgmentNotFound(NotFound):
    """No judgment has that id."""

    slug = "judgment-not-found"


class KeyNotFound(NotFound):
    """No key has that name."""

    slug = "key-not-found"


class ExperimentNotFound(NotFound):
    """No generation of that number had a canary."""

    slug = "experiment-not-found"


class RouteNotFound(NotFound):
    """No route of that name is set."""

    slug = "route-not-found"

    @classmethod
    def among(cls, name: str, there: list[str]) -> Self:
        are = f"there are {', '.join(there)}" if there else "there is none"
        return cls(f"No route {name!r} is set; {are}, and PUT /routes/NAME sets one.")


class SearchNotFound(NotFound):
    """The query log holds no search with that id."""

    slug = "search-not-found"


class Conflict(AdiabatError):
    """The request does not fit the state of things."""

    slug = "conflict"


class EncoderRefused(Conflict):
    """The encoder does not belong to this collection's index space."""

    slug = "encoder-refused"


class EncoderBroken(Conflict):
    """The encoder's artifact cannot be loaded or does not verify."""

    slug = "encoder-broken"


class EncoderNotResident(Conflict):
    """The encoder is not in memory, and requests may not load one here."""

    slug = "encoder-not-resident"


class EncoderInUse(Conflict):
    """The encoder is needed and cannot be deleted."""

    slug = "encoder-in-use"


class IndexSpaceMismatch(Conflict):
    """The stored vectors were made in another index space."""

    slug = "index-space-mismatch"


class NoLexicalSide(Conflict):
    """The words of these passages are not kept for search."""

    slug = "no-lexical-side"


class JobFinished(Conflict):
    """The job has already ended."""

    slug = "job-finished"


class JobNotResumable(Conflict):
    """The job was not interrupted."""

    slug = "job-not-resumable"


class DatasetInUse(Conflict):
    """The dataset is needed by a job and cannot be deleted."""

    slug = "dataset-in-use"


class DatasetBuiltIn(Conflict):
    """The dataset is kept by the service itself."""

    slug = "dataset-built-in"


class SearchNotLogged(Conflict):
    """The search is not among those that the query log keeps."""

    slug = "search-not-logged"


class KeyExists(Conflict):
    """A key of that name exists."""

    slug = "key-exists"


class LastAdminKey(Conflict):
    """Without this key nobody could make or revoke keys any more."""

    slug = "last-admin-key"


class IdempotencyKeyInUse(Conflict):
    """The first request with this Idempotency-Key is still running."""

    slug = "idempotency-key-in-use"


class StaleGeneration(AdiabatError):
    """The active encoder changed since it was read; read it again and repeat."""

    slug = "stale-generation"


class TooLarge(AdiabatError):
    """The body is over the limit."""

    slug = "too-large"


class HeadersTooLarge(TooLarge):
    """The request's line and headers are over the limit."""

    slug = "headers-too-large"


class TooSlow(AdiabatError):
    """The request came too slowly and was given up; send it over a better line, or in smaller parts."""

    slug = "too-slow"


class Unauthorized(AdiabatError):
    """This call needs a key that is valid here, and no such came: 'Authorization: Bearer KEY' (--api-key)."""

    slug = "unauthorized"


class MissingScope(AdiabatError):
    """The key may not do this."""

    slug = "missing-scope"


class CrossSite(AdiabatError):
    """A browser sent this write for a page of another origin, which may not; use the console, or a program."""

    slug = "cross-site"


class Overloaded(AdiabatError):
    """Too many requests are waiting; try again after the time in Retry-After."""

    slug = "overloaded"


class RateLimited(Overloaded):
    """Requests with this key come faster than it may; try again after the time in Retry-After."""

    slug = "rate-limited"


class QuotaExceeded(Overloaded):
    """This key's requests of the day are used up; try again after the time in Retry-After."""

    slug = "quota-exceeded"


class Unavailable(AdiabatError):
    """A part of the service that this call needs does not answer."""

    slug = "unavailable"


class DataDirLocked(Unavailable):
    """Another process holds the data folder."""

    slug = "data-dir-locked"


class TuningFailed(AdiabatError):
    """The tuning made no usable encoder."""

    slug = "tuning-failed"
