"""`adiabat experiments …`: what a canary's users clicked."""

from typing import Annotated

import typer

from app.cli.common import ApiKey, AsJson, Url, connect, print_json, say
from app.client import DEFAULT_URL
from app.wire.experiments import ExperimentPublic

cli = typer.Typer(help="Canaries compared with the active encoder by what was clicked.", no_args_is_help=True)


@cli.command("list")
def list_experiments(url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Every canary there was, newest first.

    Example: adiabat experiments list
    """
    with connect(url, api_key) as client:
        page = client.experiments(limit=100)
    if as_json:
        print_json(page)
        return
    if not page.experiments:
        say("no canary yet; 'adiabat encoders activate NAME --canary PERCENT' begins one")
    for each in page.experiments:
        asked = each.active_arm.requests + each.canary_arm.requests
        say(f"{each.id:>5}  {_canary(each):<40} {asked:>8,} requests  {each.verdict:<10} {_state(each)}")


@cli.command()
def show(
    generation: Annotated[int, typer.Argument(help="The generation that began it, as 'experiments list' says.")],
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """What was asked and clicked of each encoder, and what that says.

    Example: adiabat experiments show 7
    """
    with connect(url, api_key) as client:
        found = client.experiment(generation)
    if as_json:
        print_json(found)
        return
    say(f"{_canary(found)} beside {found.active_arm.encoder}, {_state(found)}")
    say(found.said)
    if found.note:
        say(f"It was ended: {found.note}")
    if found.decided:
        say(f"First decided after {found.decided.requests:,} requests: {found.decided.verdict}.")


def _canary(found: ExperimentPublic) -> str:
    return f"{found.canary.percent:g}% {found.canary.encoder}"


def _state(found: ExperimentPublic) -> str:
    return "running" if found.ended_by is None else f"ended ({found.ended_by})"
