"""Lines in batches, and the passages in them."""

from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from app.errors import InvalidField
from app.ingest import Ingest
from app.intake.lines import Cutter, Line
from app.passages import Passage
from app.wire import findings
from app.wire.passages import PassageLine

BATCH_LINES = 256
BATCH_BYTES = 2**20
PROBLEM_CHARS = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class BadLine:
    line: int
    problem: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    passages: dict[str, Passage]  # by id: of a repeated one the last
    bad: list[BadLine]
    lines: int
    through: int  # the number of the last line


async def in_batches(chunks: AsyncIterable[bytes], max_line_bytes: int) -> AsyncGenerator[list[Line], None]:
    """The same batches however the bytes arrive."""
    cutter = Cutter(max_line_bytes)
    batch: list[Line] = []
    size = 0
    async for chunk in chunks:
        for line in cutter.feed(chunk):
            batch.append(line)
            size += len(line.content or b"")
            if len(batch) == BATCH_LINES or size >= BATCH_BYTES:
                yield batch
                batch, size = [], 0
    batch += cutter.end()
    if batch:
        yield batch


def read_batch(lines: Sequence[Line], ingest: Ingest) -> Batch:
    passages: dict[str, Passage] = {}
    bad = []
    for number, content in lines:
        try:
            passage = _passage(content, ingest)
        except ValidationError as error:
            bad.append(BadLine(line=number, problem=findings.of_line(error)[:PROBLEM_CHARS]))
        except InvalidField as error:
            bad.append(BadLine(line=number, problem=error.detail[:PROBLEM_CHARS]))
        else:
            passages[passage.id] = passage
    return Batch(passages=passages, bad=bad, lines=len(lines), through=lines[-1].number)


def _passage(content: bytes | None, ingest: Ingest) -> Passage:
    """Raises `ValidationError` or `InvalidField`."""
    if content is None:
        raise InvalidField("line", "is longer than ADIABAT_MAX_BODY_BYTES allows.")
    given = PassageLine.model_validate_json(content)
    passage = Passage(id=given.id, text=given.text, title=given.title, metadata=given.metadata)
    ingest.check(passage)
    return passage
