"""`adiabat ingest`."""

import time
from pathlib import Path
from typing import Annotated

import typer

from app import pruning
from app.bulk import Totals, ingest
from app.cli.common import ApiKey, AsJson, Url, Yes, confirmed, connect, fail, print_json, progress_bar, say
from app.client import DEFAULT_URL, AdiabatClient
from app.corpus import BadLine, Format, count, read_files
from app.errors import BadInput


def install(cli: typer.Typer) -> None:
    cli.command("ingest")(ingest_files)


def ingest_files(
    files: Annotated[list[str], typer.Argument(help="JSONL, CSV or Parquet files; '-' reads standard input.")],
    format: Annotated[Format | None, typer.Option(help="What the files are, whatever their names say.")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Report bad lines and go on.")] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Then delete what is stored and not in the files, after asking.")
    ] = False,
    yes: Yes = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Put passages into the store. Safe to interrupt and run again: what is there is not embedded again.

    A line of JSONL, as in a BEIR corpus, is an object with `_id` (or `id`), `text`, and perhaps `title` and
    `metadata`. CSV (commas, a header row) and Parquet have columns of these names; every other column is metadata
    under its own name, and empty cells are left out. CSV's metadata are strings; a column `metadata` may hold JSON.
    With --skip-bad a bad line fails nothing, but files without a single good one do.
    The suffix .csv or .parquet says what a file is, unless --format does; everything else is JSONL.

    Example: adiabat ingest samples/corpus.jsonl

    Example: adiabat ingest export.csv --prune --yes
    """
    if prune:
        _require_whole(files)
    bad: list[BadLine] = []
    kept: set[str] = set()

    def on_bad(line: BadLine) -> None:
        if not skip_bad:
            raise line
        bad.append(line)
        fail(f"skipped: {line.detail}")

    began = time.monotonic()
    with connect(url, api_key) as client:
        lines = read_files(files, on_bad, format)
        with progress_bar("ingesting", count(files, format)) as bar:

            def on_progress(totals: Totals) -> None:
                bar.update(totals.done, f"{totals.done / (time.monotonic() - began):.0f}/s")

            try:
                totals = ingest(client, pruning.noting(lines, kept) if prune else lines, on_progress, on_bad)
            except KeyboardInterrupt:
                fail("interrupted; what was acknowledged is stored. Run the same command again: it goes on from there.")
                raise
        totals.bad_lines = len(bad)
        took_s = time.monotonic() - began
        if not as_json:
            _say_totals(totals, took_s)
        pruned = {"pruned": _prune(client, kept, totals, yes)} if prune else {}
    if as_json:
        fields = ("embedded", "metadata_updated", "unchanged", "repeated", "bad_lines")
        print_json({name: getattr(totals, name) for name in fields} | {"took_s": round(took_s, 3)} | pruned)
    elif prune:
        say(f"{pruned['pruned']} deleted that were not in the files")
    if bad and not totals.done:
        raise BadInput("Nothing was stored: no line is a passage.")
    if not totals.done:
        fail(f"no passage was found in {', '.join('standard input' if name == '-' else name for name in files)}.")


def _say_totals(totals: Totals, took_s: float) -> None:
    say(
        f"{totals.embedded} embedded, {totals.metadata_updated} with new metadata only, {totals.unchanged} unchanged, "
        f"{totals.repeated} repeated ids, {totals.bad_lines} bad lines; {took_s:.1f} s, "
        f"{totals.done / max(took_s, 1e-9):.0f} passages/s"
    )


def _require_whole(files: list[str]) -> None:
    """A pipe whose writer died ends like a whole one, and what it did not bring would be deleted."""
    for name in files:
        if not Path(name).is_file():
            raise BadInput(f"--prune needs files, to know that it saw all of them; {name!r} is none.")


def _prune(client: AdiabatClient, kept: set[str], totals: Totals, yes: bool) -> int:
    """How many were deleted; 0 where the answer was no. Raises `BadInput`, with nothing deleted."""
    if totals.bad_lines:
        raise BadInput(
            f"Nothing was deleted: with {totals.bad_lines} bad lines it is unknown whose passages they were. "
            "Mend them and run the command again."
        )
    if not kept:
        raise BadInput("Nothing was deleted: the files hold no passage, and --prune would delete all that is stored.")
    with progress_bar("comparing", client.count_passages()) as bar:
        beside = pruning.stored_beside(client, kept, bar.update)
    found = f"{len(beside)} stored passages are not in the files."
    if yes:
        fail(f"{found} They are deleted now.")
    if not beside or not confirmed(f"{found} Delete them?", yes):
        return 0
    with progress_bar("deleting", len(beside)) as bar:
        return pruning.delete(client, beside, bar.update)
