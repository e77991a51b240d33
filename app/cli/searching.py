"""`adiabat search`, and what other commands share with it."""

from typing import Annotated, Any

import orjson
import typer
from rich.table import Table

from app.cli.common import ApiKey, AsJson, Url, connect, console, print_json, say
from app.client import DEFAULT_URL
from app.errors import BadInput
from app.wire.common import EncoderUsed
from app.wire.search import HitGroup, Mode, RankedHit, SearchResponse

SNIPPET_CHARS = 160
RANKINGS = ("vectors", "words", "base")
MADE_BY = {"dense": "{}", "hybrid": "words and {}", "lexical": "words alone"}


def install(cli: typer.Typer) -> None:
    cli.command()(search)


def search(
    query: str,
    mode: Annotated[Mode, typer.Option(help="By vectors, by words in common, or by both.")] = "dense",
    limit: Annotated[int, typer.Option(help="How many hits.")] = 10,
    encoder: Annotated[str | None, typer.Option(help="Use this encoder instead of the active one.")] = None,
    route: Annotated[str | None, typer.Option(help="Let this route choose the encoder.")] = None,
    lang: Annotated[str | None, typer.Option(help="The query's language, which routes may look at.")] = None,
    compare_to: Annotated[str | None, typer.Option(help="Show each hit's rank with this encoder, too.")] = None,
    filter: Annotated[str | None, typer.Option(help="Qdrant filter as JSON, or KEY=VALUE.")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Compare with every passage.")] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show each hit's rank by vectors, by words and by the base's vectors.")
    ] = False,
    group_by: Annotated[
        str | None, typer.Option(help="Show groups: hits by this field of the metadata; --limit counts groups.")
    ] = None,
    group_size: Annotated[int | None, typer.Option(help="How many hits of each group; 3 if not given.")] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Search the passages.

    Example: adiabat search "why do bees hang off the front of the hive" --filter lang=en

    Example: adiabat search "taking honey off" --encoder bees --compare-to base

    Example: adiabat search "Varroa threshold in August" --mode hybrid --explain

    Example: adiabat search "taking honey off" --group-by source --group-size 2
    """
    with connect(url, api_key) as client:
        answer = client.search(
            query,
            mode=mode,
            limit=limit,
            encoder=encoder,
            route=route,
            lang=lang,
            compare_to=compare_to,
            filter=parse_filter(filter),
            exact=exact,
            explain=explain,
            group_by=group_by,
            group_size=group_size,
        )
    if as_json:
        print_json(answer)
        return
    if answer.groups is None:
        _print_hits(answer, filter)
    else:
        _print_groups(answer.groups, explained=answer.explained is not None)
    compared = f"; compared to {_name(answer.compared_to.encoder)}" if answer.compared_to else ""
    routed = f", by the route {answer.route}" if answer.route else ""
    say(f"{MADE_BY[answer.mode].format(_name(answer.encoder))}{routed}; {answer.took_ms.total:.1f} ms{compared}")


def _print_groups(groups: list[HitGroup], *, explained: bool) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("group", *(RANKINGS if explained else ()), "score", "id", "passage"):
        table.add_column(heading, justify="left" if heading in ("group", "id", "passage") else "right")
    for group in groups:
        for at, hit in enumerate(group.hits):
            name = "" if at else str(group.id)
            table.add_row(name, *_places(hit), f"{hit.score:.4f}", hit.id, _line(hit.title, hit.text))
    console.print(table)
    if not groups:
        say("no hits with that field")


def _print_hits(answer: SearchResponse, filter: str | None) -> None:
    compared, explained = answer.compared_to, RANKINGS if answer.explained else ()
    table = Table(box=None, pad_edge=False)
    for heading in ("rank", *(["there"] if compared else []), *explained, "score", "id", "passage"):
        table.add_column(heading, justify="left" if heading in ("id", "passage") else "right")
    for rank, hit in enumerate(answer.hits, 1):
        there = [f"{hit.compared_rank or f'>{compared.depth}'}{' new' if hit.new else ''}"] if compared else []
        table.add_row(str(rank), *there, *_places(hit), f"{hit.score:.4f}", hit.id, _line(hit.title, hit.text))
    for lost in compared.lost if compared else []:
        there = [str(lost.compared_rank), *("" for _ in explained)]
        table.add_row("lost", *there, f"{lost.score:.4f}", lost.id, _line(lost.title, lost.text))
    console.print(table)
    if not answer.hits:
        say(f"no hits with --filter {filter}" if filter else "no hits")


def _places(hit: RankedHit) -> list[str]:
    """Its ranks by each ranking, where they were asked for."""
    told = hit.explain
    return [f"{place.rank}" if place else "-" for place in (told.dense, told.lexical, told.base)] if told else []


def _line(title: str, text: str) -> str:
    return snippet(f"{title}: {text}" if title else text)


def _name(used: EncoderUsed) -> str:
    generation = f", generation {used.generation}" if used.generation is not None else ""
    return f"{used.name}@{used.version}{generation}"


def snippet(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SNIPPET_CHARS else line[: SNIPPET_CHARS - 1] + "…"


def parse_filter(given: str | None) -> dict[str, Any] | None:
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
