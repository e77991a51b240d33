"""A collection brought into the passage store: first the sample, then everything, then a look at what came.

What is stored already is left alone, so a run that broke goes on where it ended when it is repeated, and a later one
brings what is new.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np

from app.assembly import admission_rules, index_space, make_folder
from app.encoders.admission import Registrar
from app.encoders.artifacts import BASE_KEY
from app.encoders.base import ensure_base, require_one_folder
from app.encoders.probes import cosines
from app.encoders.shared_artifacts import open_artifacts
from app.encoders.spec import read_spec
from app.errors import BadInput, EncoderRefused, Unavailable
from app.ingest import content_hash
from app.lock import data_dir_lock
from app.passages import Hashes, IndexSpace, Passage, PassageStore, Point, open_store
from app.passages.payload import checked_vector, payload_hash
from app.passages.store import Vector
from app.registry import Registry
from app.settings import Settings
from app.takeover import Limits
from app.takeover.encoder import Asked, require_same
from app.takeover.probe import Finding, Sampled, compare, ranks, told_ranges
from app.takeover.source import BadPoint, Fields, Found, Source, field_names

UNIT = 0.01  # how far from 1 the length of a vector may be that counts as normalised
SAME = 1 - 1e-6  # cosine of what was written and what is read back

OnBad = Callable[[BadPoint], None]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Examined:
    """What the sample told; `passages` with their vectors, to look for them afterwards."""

    finding: Finding
    passages: list[tuple[Passage, Vector]]


@dataclass(kw_only=True, slots=True)
class Brought:
    """Counted in points. `there`: passages that the store holds afterwards."""

    written: int = 0
    unchanged: int = 0
    bad: int = 0
    there: int = 0

    @property
    def done(self) -> int:
        return self.written + self.unchanged + self.bad


def examine(
    source: Source,
    fields: Fields,
    asked: Asked,
    settings: Settings,
    limits: Limits,
) -> Examined:
    """Compare a sample with what the named encoder makes of its texts.

    Raises `EncoderRefused` with the figures where it made them not, `BadInput` where they are no passages or are
    searched by something else than their angle.
    """
    named = asked.named
    if source.dimension != named.spec.dimension:
        raise EncoderRefused(
            f"The vectors of {source.said} have {source.dimension} dimensions, {named.said} gives "
            f"{named.spec.dimension}: another model made them. Name that one with --encoder."
        )
    if not (count := source.count()):
        raise BadInput(f"There is nothing in {source.said}; name another.")
    found = source.sample(ranks(count, limits.samples))
    sample, passages = _sampled(found, fields, settings, named.spec.dimension)
    if not sample:
        names = ", ".join(map(repr, sorted({name for each in found for name in field_names(each.payload)})[:20]))
        raise BadInput(
            f"No point of {len(found)} sampled in {source.said} has a text in {fields.text!r} and a vector. Their "
            f"fields are {names or 'none'}: name the one with the text that was embedded (--text-field)."
        )
    if not source.by_cosine:
        _check_lengths(source, [each.vector for each in sample])
    prompt = named.spec.passage_prompt
    lengths = asked.lengths([each.rendered for each in sample], prompt)
    finding = compare(sample, asked.embed, prompt, lengths, limits.min_cosine)
    if not finding.allows(limits.max_different):
        raise EncoderRefused(_refusal(source, named.said, finding))
    return Examined(finding=finding, passages=passages)


def bring(
    source: Source,
    fields: Fields,
    asked: Asked,
    examined: Examined,
    settings: Settings,
    *,
    on_bad: OnBad,
    copied: Callable[[int], None],
) -> Brought:
    """Everything that makes passages, into the store of the settings' data folder, whose base becomes the encoder.

    `on_bad` hears of each point that makes none; where it returns, the others go on. Raises `DataDirLocked` while a
    service runs on the folder, `Unavailable` where what came is not what was sent.
    """
    with _opened(asked, settings) as (store, normalized):
        brought, before, fresh = Brought(), store.count(), 0
        seen: set[bytes] = set()
        for page in source.pages():
            points = list(_points(page, fields, settings, store.index_space, normalized, seen, brought, on_bad))
            known = store.content_hashes([point.passage.id for point in points])
            changed = [
                point
                for point in points
                if known.get(point.passage.id) != Hashes(point.content_hash, payload_hash(point.passage))
            ]
            if changed:
                store.upsert(changed)
            fresh += len(points) - len(known)
            brought.written += len(changed)
            brought.unchanged += len(points) - len(changed)
            copied(brought.done)
        store.flush()
        brought.there = store.count()
        if brought.there != before + fresh:
            raise Unavailable(
                f"The store holds {brought.there} passages and should hold {before + fresh}; something else writes to "
                "it. End that, and repeat the command."
            )
        verify(store, examined)
    return brought


def verify(store: PassageStore, examined: Examined) -> None:
    """Raise `Unavailable` unless the sample lies in the store as it was sent.

    A passage whose text is another there, since it changed in the source meanwhile, is left out.
    """
    stored = {one.passage.id: one for one in store.fetch([p.id for p, _ in examined.passages], with_vectors=True)}
    for passage, vector in examined.passages:
        one = stored.get(passage.id)
        if one is not None and one.passage.text != passage.text:
            continue
        if one is None or one.vector is None or cosines(one.vector[None], vector[None])[0] < SAME:
            raise Unavailable(f"The passage {passage.id!r} is not in the store as it was sent; repeat the command.")


@contextmanager
def _opened(asked: Asked, settings: Settings) -> Iterator[tuple[PassageStore, bool]]:
    """The store, and whether its vectors have length 1. At first the data folder is made, with its base."""
    make_folder(settings.data_dir)
    with data_dir_lock(settings.data_dir):
        registry = Registry(settings.registry_at)
        try:
            artifacts = open_artifacts(settings, registry)
            require_one_folder(settings, artifacts, registry)
            asked.keep_graph(artifacts)
            ensure_base(settings, artifacts, registry, Registrar(artifacts, registry, admission_rules(settings), None))
            require_same(asked.named, artifacts.manifest(BASE_KEY).digest)
            normalized = read_spec(artifacts.files(BASE_KEY)).normalize
            store = open_store(settings, index_space(artifacts, normalized=normalized))
            try:
                yield store, normalized
            finally:
                store.close()
        finally:
            registry.close()


def _sampled(
    found: Sequence[Found], fields: Fields, settings: Settings, dimension: int
) -> tuple[list[Sampled], list[tuple[Passage, Vector]]]:
    """Those that make passages; what does not is told when everything is brought."""
    space = IndexSpace(passage_encoder_digest="", dimension=dimension)  # renders as any does
    sample: list[Sampled] = []
    passages: list[tuple[Passage, Vector]] = []
    for each in found:
        with suppress(BadPoint):
            passage = fields.passage(each, settings)
            if each.vector is not None:
                others = fields.other_texts(each.payload)
                titles = {} if fields.title else others
                sampled = Sampled(
                    at=each.at,
                    title=passage.title,
                    text=passage.text,
                    rendered=space.render(passage.title, passage.text),
                    others=others,
                    titled={name: space.render(text, passage.text) for name, text in titles.items()},
                    vector=each.vector,
                )
                sample.append(sampled)
                passages.append((passage, each.vector))
    return sample, passages


def _points(
    page: Sequence[Found],
    fields: Fields,
    settings: Settings,
    space: IndexSpace,
    normalized: bool,
    seen: set[bytes],
    brought: Brought,
    on_bad: OnBad,
) -> Iterator[Point]:
    for found in page:
        try:
            passage = fields.passage(found, settings)
            mark = hashlib.blake2b(passage.id.encode(), digest_size=8).digest()
            if mark in seen:
                raise BadPoint(f"point {found.at}: another point had the id {passage.id!r}; an id names one passage")
            vector = _vector(found, space.dimension, normalized)
        except BadPoint as error:
            brought.bad += 1
            on_bad(error)
            continue
        seen.add(mark)
        yield Point(passage=passage, content_hash=content_hash(passage, space), vector=vector)


def _vector(found: Found, dimension: int, normalized: bool) -> Vector:
    """As the base would give it: of length 1 where it normalises. Raises `BadPoint`."""
    if found.vector is None:
        raise BadPoint(f"point {found.at} has no vector")
    try:
        vector = checked_vector(found.vector, dimension)
    except BadInput as error:
        raise BadPoint(f"point {found.at}: {error}") from error
    length = float(np.linalg.norm(vector))
    if length == 0:
        raise BadPoint(f"point {found.at} has a vector of zeros")
    return vector / np.float32(length) if normalized else vector


def _check_lengths(source: Source, vectors: Sequence[Vector]) -> None:
    lengths = [float(np.linalg.norm(vector)) for vector in vectors]
    if max(abs(length - 1) for length in lengths) > UNIT:
        raise BadInput(
            f"{source.said[0].upper()}{source.said[1:]} is not searched by cosine, and its vectors are "
            f"{min(lengths):.3g} to {max(lengths):.3g} long: here passages are ranked by the angle alone, which is "
            "another order. Only vectors of length 1 can be taken over from it."
        )


def _refusal(source: Source, said: str, finding: Finding) -> str:
    what, mend = f"{said} did not make the vectors of {source.said}.", "Name the encoder that did (--encoder)."
    if 2 * finding.equal >= finding.sampled:
        what = f"{source.said[0].upper()}{source.said[1:]} holds vectors that {said} did not make."
        mend = (
            "Embed those again there, or, where they are texts that were edited since, allow them their share "
            "(--max-different)."
        )
    where = [f"The others lie, by id, at {told_ranges(finding)}."] if finding.equal else []
    return " ".join([what, finding.sentence(said), *where, *(finding.hints or [mend])])
