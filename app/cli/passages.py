"""`adiabat passages`."""

from typing import Annotated, Any

import orjson
import typer

from app.cli.common import ApiKey, AsJson, Url, Yes, confirmed, connect, print_json, say
from app.cli.searching import parse_filter, snippet
from app.client import DEFAULT_URL, AdiabatClient
from app.errors import BadInput


def install(cli: typer.Typer) -> None:
    cli.command()(passages)


def passages(
    ids: Annotated[list[str] | None, typer.Argument(help="Show these in full.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many to show.")] = 20,
    cursor: Annotated[str | None, typer.Option(help="Go on where the last page ended: what it named.")] = None,
    filter: Annotated[str | None, typer.Option(help="Qdrant filter as JSON, or KEY=VALUE.")] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete what the ids or the filter name.")] = False,
    yes: Yes = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Browse what is stored, show passages by id, or delete by id or filter.

    Example: adiabat passages --filter lang=de --limit 5

    Example: adiabat passages en-001 en-002 --delete
    """
    conditions = parse_filter(filter)
    if ids and conditions:
        raise BadInput("Give ids or --filter, not both.")
    with connect(url, api_key) as client:
        if delete:
            _delete(client, ids, conditions, yes=yes, as_json=as_json)
        elif ids:
            _show(client, ids, as_json=as_json)
        else:
            _browse(client, cursor, limit, conditions, as_json=as_json)


def _delete(
    client: AdiabatClient, ids: list[str] | None, conditions: dict[str, Any] | None, *, yes: bool, as_json: bool
) -> None:
    if not ids and not conditions:
        raise BadInput("--delete needs ids or --filter, to say which.")
    if conditions:
        found = client.count_passages(conditions)
        if found and not confirmed(f"{found} passages match the filter. Delete them?", yes):
            return
    deleted = client.delete_passages(ids or None, conditions)
    if as_json:
        print_json({"deleted": deleted})
    else:
        say(f"{deleted} deleted")


def _show(client: AdiabatClient, ids: list[str], *, as_json: bool) -> None:
    found = [client.passage(passage_id) for passage_id in ids]
    if as_json:
        print_json({"passages": found})
        return
    for passage in found:
        say(f"{passage.id}  {passage.title}".rstrip())
        say(passage.text)
        say(orjson.dumps(passage.metadata).decode())


def _browse(
    client: AdiabatClient, cursor: str | None, limit: int, conditions: dict[str, Any] | None, *, as_json: bool
) -> None:
    page, count = client.passages(cursor, limit, conditions), client.count_passages(conditions)
    if as_json:
        print_json({"count": count, **page.model_dump()})
        return
    for passage in page.passages:
        say(f"{passage.id}  {snippet(passage.title or passage.text)}")
    say(f"{count} passages" + (f"; the next page: --cursor {page.next_cursor}" if page.next_cursor else ""))
