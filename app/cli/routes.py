"""`adiabat routes …`: encoders for a part of the searches."""

from typing import Annotated, Any

import orjson
import typer

from app.cli.common import ApiKey, AsJson, Url, connect, print_json, say
from app.client import DEFAULT_URL
from app.errors import BadInput
from app.wire.routes import LanguageFigures, RouteMatch, RouteSwitched

cli = typer.Typer(help="Encoders for a part of the searches: by name, filter, language or key.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME")]
IfGeneration = Annotated[int | None, typer.Option(help="Only if this generation made the route what it is.")]


@cli.command("list")
def list_routes(url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """All routes, in the order in which they are asked for a search.

    Example: adiabat routes list
    """
    with connect(url, api_key) as client:
        found = client.routes()
    if as_json:
        print_json(found)
        return
    if not found:
        say("no route yet; 'adiabat routes set NAME ENCODER' sets one")
    for each in found:
        say(f"{each.name:<24} {each.encoder:<32} {_terms(each.match, each.base_languages)}")


@cli.command()
def show(name: Name, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """A route and all that it was, newest first.

    Example: adiabat routes show medical
    """
    with connect(url, api_key) as client:
        found = client.route(name)
    if as_json:
        print_json(found)
        return
    for each in found.history:
        terms = _terms(each.match, each.base_languages) if each.encoder else ""
        note = f": {each.note}" if each.note else ""
        forced = " (forced)" if each.forced else ""
        say(f"{each.generation:>5}  {each.encoder or '-':<32} {each.reason}{forced}  {terms}{note}".rstrip())


@cli.command("set")
def set_route(
    name: Name,
    encoder: Annotated[str, typer.Argument(metavar="ENCODER[@VERSION]")],
    filter: Annotated[
        str | None, typer.Option(help="Searches whose filter demands this: KEY=VALUE, or JSON with key and value.")
    ] = None,
    lang: Annotated[list[str] | None, typer.Option(help="Searches in this language; any number of times.")] = None,
    key: Annotated[list[str] | None, typer.Option(help="Searches with the API key of this name; so too.")] = None,
    base_language: Annotated[
        list[str] | None, typer.Option(help="Searches of the route in this language stay on the base; so too.")
    ] = None,
    base_languages_from_card: Annotated[
        bool,
        typer.Option("--base-languages-from-card", help="Those too in which the encoder is worse by its card."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Also an encoder that its gate rejected.")] = False,
    if_generation: IfGeneration = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Let an encoder answer searches that name the route, and those for which all that is said holds.

    Example: adiabat routes set medical bees --filter topic=disease --base-language zh

    Example: adiabat routes set medical bees --base-languages-from-card
    """
    match = {"filter": _filter(filter), "lang": lang or [], "key": key or []}
    with connect(url, api_key) as client:
        switched = client.set_route(
            name,
            encoder,
            match=match if any(match.values()) else None,
            base_languages=base_language or [],
            base_languages_from_card=base_languages_from_card,
            force=force,
            if_generation=if_generation,
        )
    _print_switch(switched, as_json)


@cli.command()
def delete(
    name: Name,
    if_generation: IfGeneration = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """The active encoder answers what the route took by itself; a rollback brings it back.

    Searches that name it are refused from then on: to end it without that, set it to the active encoder.

    Example: adiabat routes delete medical
    """
    with connect(url, api_key) as client:
        _print_switch(client.remove_route(name, if_generation=if_generation), as_json)


@cli.command()
def rollback(
    name: Name,
    if_generation: IfGeneration = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """The route as it last stood otherwise: its encoder and what it takes.

    Example: adiabat routes rollback medical
    """
    with connect(url, api_key) as client:
        _print_switch(client.roll_route_back(name, if_generation=if_generation), as_json)


def _filter(given: str | None) -> Any:
    if given is None:
        return None
    key, separator, value = given.partition("=")
    if separator and not given.lstrip().startswith("{"):
        return {"key": key, "value": value}
    try:
        return orjson.loads(given)
    except ValueError as error:
        raise BadInput(f"--filter {given!r} is neither KEY=VALUE nor JSON ({error}).") from error


def _terms(match: RouteMatch | None, base_languages: list[str]) -> str:
    taken = []
    if match and match.filter:
        taken.append(f"{match.filter.key}={match.filter.value}")
    if match and match.lang:
        taken.append(f"lang {', '.join(match.lang)}")
    if match and match.key:
        taken.append(f"key {', '.join(match.key)}")
    said = " and ".join(taken) or "by name alone"
    return said + (f"; {', '.join(base_languages)} on base" if base_languages else "")


def _print_switch(switched: RouteSwitched, as_json: bool) -> None:
    if as_json:
        print_json(switched)
        return
    route = switched.route
    if route is None:
        say(f"{switched.name} is no route any more, generation {switched.generation}")
    else:
        terms = _terms(route.match, route.base_languages)
        say(f"{switched.name} has {route.encoder}, generation {switched.generation}: {terms}")
    if switched.from_card is not None:
        _print_card(switched.from_card)
    for each in switched.replicas.behind:
        say(f"not yet: {each.name} is at generation {each.generation}" + (f", {each.reason}" if each.reason else ""))


def _print_card(worse: dict[str, LanguageFigures]) -> None:
    for lang, figures in worse.items():
        mrr = figures.mrr
        say(f"{lang}: MRR@10 {mrr.before:.4f} on base, {mrr.after:.4f} with it, over {figures.queries} questions")
    if not worse:
        say("by its card it is worse in no language")
