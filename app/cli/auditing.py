"""`adiabat audit`."""

from datetime import datetime
from typing import Annotated

import typer

from app.cli.common import ApiKey, AsJson, Url, connect, print_json, say
from app.client import DEFAULT_URL
from app.wire.audit import AuditEntry


def install(cli: typer.Typer) -> None:
    cli.command()(audit)


def audit(
    action: Annotated[
        str | None, typer.Option(help="Only what was done so, such as switched, key-made or refused.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="Only with the key of this name.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many to list.")] = 20,
    cursor: Annotated[str | None, typer.Option(help="Go on where the last list ended: what it named.")] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Who changed what, from where, and what came of it; newest first.

    Example: adiabat audit --action refused --limit 50
    """
    with connect(url, api_key) as client:
        page = client.audit(cursor, limit, action=action, key=key)
    if as_json:
        print_json(page)
        return
    for each in page.entries:
        say(_line(each))
    if page.next_cursor:
        say(f"the next page: --cursor {page.next_cursor}")


def _line(entry: AuditEntry) -> str:
    who = " from ".join(filter(None, [entry.key or "nobody's key", entry.peer]))
    generation = f", generation {entry.generation}" if entry.generation is not None else ""
    outcome = "" if entry.outcome == "done" else f" [{entry.outcome}]"
    at = f"{datetime.fromtimestamp(entry.at):%Y-%m-%d %H:%M:%S}"
    return f"{at}  {entry.action}  {entry.target}{generation}{outcome}  {who}"
