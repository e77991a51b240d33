"""`adiabat queries …`: the query log."""

import sys
from pathlib import Path
from typing import Annotated, BinaryIO

import orjson
import typer

from app.cli.common import ApiKey, AsJson, Url, connect, fail, print_json, progress_bar, say
from app.client import DEFAULT_URL, AdiabatClient

cli = typer.Typer(help="What was asked, shown and clicked, where the service keeps it.", no_args_is_help=True)

PAGE = 1_000
STDOUT = Path("-")

SearchIds = Annotated[list[str], typer.Argument(help="Of the searches.")]


@cli.command()
def export(
    file: Annotated[Path, typer.Argument(help="Where to; '-': standard output.")],
    since: Annotated[float | None, typer.Option(help="From this time on, in seconds since 1970.")] = None,
    key: Annotated[str | None, typer.Option(help="Only what was asked with the key of this name.")] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Write the query log as lines of JSON, newest first: searches, what was shown, what was clicked.

    It holds what people typed, which may name them: keep the file as you would keep their mail.

    Example: adiabat queries export queries.jsonl
    """
    with connect(url, api_key) as client:
        if file == STDOUT:
            _write(client, sys.stdout.buffer, since, key)
            return
        draft = file.with_name(f"{file.name}.part")
        with draft.open("wb") as out:
            written, share = _write(client, out, since, key)
        draft.replace(file)
    say(f"{written} searches to {file}")
    if not share:
        fail("the query log is off: ADIABAT_QUERY_LOG=0.1 keeps a tenth of the searches from the next start on.")


@cli.command()
def delete(ids: SearchIds, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Forget searches and their clicks.

    Example: adiabat queries delete 5f0c8a3e9d7b41c2a6e84b1f0d3c9a77
    """
    with connect(url, api_key) as client:
        for search_id in ids:
            client.delete_query(search_id)
    if as_json:
        print_json({"deleted": len(ids)})
    else:
        say(f"{len(ids)} forgotten")


def _write(client: AdiabatClient, out: BinaryIO, since: float | None, key: str | None) -> tuple[int, float]:
    """How many searches were written, and the share of searches that the service keeps."""
    written, cursor = 0, None
    with progress_bar("exporting") as bar:
        while True:
            page = client.queries(cursor, PAGE, since=since, key=key)
            for each in page.searches:
                said = each.model_dump(mode="json", exclude_none=True)
                out.write(orjson.dumps(said, option=orjson.OPT_APPEND_NEWLINE))
            written += len(page.searches)
            bar.update(written, total=page.count)
            cursor = page.next_cursor
            if cursor is None:
                out.flush()
                return written, page.share
