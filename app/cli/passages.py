"""`adiabat ingest`, `adiabat search`, `adiabat passages`."""

import io
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.table import Table

from app.bulk import BadLine, Line, OnBad, Totals, ingest, read_passages
from app.cli.common import ApiKey, AsJson, Url, connect, console, fail, print_json, progress_bar, say
from app.client import DEFAULT_URL
from app.errors import BadInput

SNIPPET_CHARS = 160


def install(cli: typer.Typer) -> None:
    cli.command("ingest")(ingest_files)
    cli.command()(search)
    cli.command()(passages)


def ingest_files(
    files: Annotated[
        list[str], typer.Argument(help="BEIR corpus.jsonl or plain JSONL files; '-' reads standard input.")
    ],
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Report bad lines and go on.")] = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Put passages into the store. Safe to interrupt and run again: what is there is not embedded again.

    A line is an object with `_id` (or `id`), `text`, and optionally `title` and `metadata`.

    Example: adiabat ingest samples/corpus.jsonl
    """
    bad: list[BadLine] = []

    def on_bad(line: BadLine) -> None:
        if not skip_bad:
            raise line
        bad.append(line)
        fail(f"skipped: {line.detail}")

    began = time.monotonic()
    with connect(url, api_key) as client, progress_bar("ingesting", _count_lines(files)) as bar:

        def on_progress(totals: Totals) -> None:
            bar.update(totals.done, f"{totals.done / (time.monotonic() - began):.0f}/s")

        try:
            totals = ingest(client, _read(files, on_bad), on_progress, on_bad)
        except KeyboardInterrupt:
            fail("interrupted; what was acknowledged is stored. Run the same command again: it goes on from there.")
            raise
    totals.bad_lines = len(bad)
    took_s = time.monotonic() - began
    if as_json:
        fields = ("embedded", "metadata_updated", "unchanged", "repeated", "bad_lines")
        print_json({name: getattr(totals, name) for name in fields} | {"took_s": round(took_s, 3)})
        return
    say(
        f"{totals.embedded} embedded, {totals.metadata_updated} with new metadata only, {totals.unchanged} unchanged, "
        f"{totals.repeated} repeated ids, {totals.bad_lines} bad lines; {took_s:.1f} s, "
        f"{totals.done / max(took_s, 1e-9):.0f} passages/s"
    )


def _read(files: list[str], on_bad: OnBad) -> Iterator[Line]:
    for name in files:
        if name == "-":
            if isinstance(sys.stdin, io.TextIOWrapper):
                sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
            yield from read_passages("standard input", sys.stdin, on_bad)
            continue
        try:
            # Bytes that are not UTF-8 come through as surrogates, and are told by their line.
            with Path(name).open(encoding="utf-8", errors="surrogateescape") as lines:
                yield from read_passages(name, lines, on_bad)
        except OSError as error:
            raise BadInput(f"{name} cannot be read ({error.strerror}); give a JSONL file, or '-' for input.") from error


def _count_lines(files: list[str]) -> int | None:
    """The bar's total; unknown where something is piped in."""
    try:
        return sum(sum(1 for line in Path(name).open("rb") if line.strip()) for name in files)
    except OSError:
        return None


def search(
    query: str,
    limit: Annotated[int, typer.Option(help="How many hits.")] = 10,
    encoder: Annotated[str | None, typer.Option(help="Use this encoder instead of the active one.")] = None,
    filter: Annotated[str | None, typer.Option(help="Qdrant filter as JSON, or KEY=VALUE.")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Compare with every passage.")] = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Search the passages.

    Example: adiabat search "why do bees hang off the front of the hive" --filter lang=en
    """
    with connect(url, api_key) as client:
        answer = client.search(query, limit=limit, encoder=encoder, filter=_parse_filter(filter), exact=exact)
    if as_json:
        print_json(answer)
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("rank", "score", "id", "passage"):
        table.add_column(heading, justify="right" if heading in ("rank", "score") else "left")
    for rank, hit in enumerate(answer.hits, 1):
        text = f"{hit.title}: {hit.text}" if hit.title else hit.text
        table.add_row(str(rank), f"{hit.score:.4f}", hit.id, _snippet(text))
    console.print(table)
    if not answer.hits:
        say("no hits")
    used, took = answer.encoder, answer.took_ms
    generation = f", generation {used.generation}" if used.generation is not None else ""
    say(f"{used.name}@{used.version}{generation}; {took.total:.1f} ms")


def _snippet(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SNIPPET_CHARS else line[: SNIPPET_CHARS - 1] + "…"


def _parse_filter(given: str | None) -> dict[str, Any] | None:
    if given is None:
        return None
    key, separator, value = given.partition("=")
    if separator and not given.lstrip().startswith("{"):
        return {"must": [{"key": key, "match": {"value": value}}]}
    try:
        found = orjson.loads(given)
    except ValueError as error:
        raise BadInput(f"--filter {given!r} is neither KEY=VALUE nor JSON ({error}).") from error
    if not isinstance(found, dict):
        raise BadInput(f"--filter {given!r} is neither KEY=VALUE nor a JSON object.")
    return found


def passages(
    limit: Annotated[int, typer.Option(help="How many to show.")] = 20,
    delete: Annotated[list[str] | None, typer.Option(help="Delete the passage with this id (repeatable).")] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Show what is stored, or delete by id.

    Example: adiabat passages --limit 5
    """
    with connect(url, api_key) as client:
        if delete:
            say(f"{client.delete_passages(delete)} deleted")
            return
        page, count = client.passages(limit=limit), client.count_passages()
    if as_json:
        print_json({"count": count, **page.model_dump()})
        return
    for passage in page.passages:
        say(f"{passage.id}  {_snippet(passage.title or passage.text)}")
    say(f"{count} passages")
