"""`adiabat search`, `adiabat passages`."""

from typing import Annotated, Any

import orjson
import typer
from rich.table import Table

from app.cli.common import ApiKey, AsJson, Url, Yes, confirmed, connect, console, print_json, say
from app.client import DEFAULT_URL, AdiabatClient
from app.errors import BadInput

SNIPPET_CHARS = 160


def install(cli: typer.Typer) -> None:
    cli.command()(search)
    cli.command()(passages)


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
    conditions = _parse_filter(filter)
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
        say(f"{passage.id}  {_snippet(passage.title or passage.text)}")
    say(f"{count} passages" + (f"; the next page: --cursor {page.next_cursor}" if page.next_cursor else ""))
