"""`adiabat continuous …`: the standing order to tune on what users judge and click."""

from datetime import datetime
from typing import Annotated, Any

import typer

from app.cli.common import ApiKey, AsJson, Url, connect, print_json, say
from app.cli.encoders import rules_of
from app.cli.tuning import GATE, parse_recipe
from app.client import DEFAULT_URL
from app.errors import BadInput
from app.wire.active_encoder import STICKY_KEY
from app.wire.continuous import ContinuousCanary, ContinuousPublic, ContinuousStep

MAX_HOURS = ContinuousCanary.model_fields["max_hours"].default

cli = typer.Typer(help="Tune again and again on what users judge and click, by a standing order.", no_args_is_help=True)


@cli.command("set")
def set_order(
    name: Annotated[str, typer.Argument(help="Name of the encoder; each round that makes one makes its next version.")],
    every_hours: Annotated[float | None, typer.Option(help="Begin when the last round began so long ago.")] = None,
    min_new_judgments: Annotated[int | None, typer.Option(help="... or when so many pairs were newly judged.")] = None,
    guard: Annotated[
        list[str] | None, typer.Option(help="DATASET[:SPLIT] that must not get worse (repeatable).")
    ] = None,
    recipe: Annotated[str, typer.Option(help="Recipe as JSON; what is not named has good defaults.")] = "{}",
    min_gain: Annotated[float, typer.Option(help="Gate: as of 'adiabat tune'.")] = GATE.min_gain,
    max_guard_loss: Annotated[float, typer.Option(help="Gate: as of 'adiabat tune'.")] = GATE.max_guard_loss,
    max_drift: Annotated[float | None, typer.Option(help="Gate: as of 'adiabat tune'.")] = GATE.max_drift,
    alpha: Annotated[float, typer.Option(help="Gate: as of 'adiabat tune'.")] = GATE.alpha,
    canary: Annotated[
        float | None, typer.Option(help="Try what passed on so many percent of the searches; else its gate is enough.")
    ] = None,
    sticky_by: Annotated[str, typer.Option(help="With --canary: 'key', or the header that tells who asks.")] = (
        STICKY_KEY
    ),
    interleave: Annotated[bool, typer.Option("--interleave", help="With --canary: both answer those together.")] = (
        False
    ),
    rule: Annotated[
        list[str] | None, typer.Option(help="With --canary: what ends it by itself, such as latency=2 or errors=null.")
    ] = None,
    max_loss: Annotated[
        float, typer.Option(help="With --canary: promote when more than this loss is ruled out; 0: when it is better.")
    ] = 0.0,
    max_hours: Annotated[float, typer.Option(help="With --canary: discard it after so long undecided.")] = MAX_HOURS,
    promote: Annotated[
        bool, typer.Option("--promote", help="Activate what succeeds; else the last step is a person's.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Begin nothing, and tell in the history what would have begun.")
    ] = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Set the order, in place of the one before; a round that is under way ends with its order.

    Example: adiabat continuous set learned --min-new-judgments 200 --guard beekeeping:de --canary 10
    --sticky-by X-User-Id --promote
    """
    if canary is None and (rule or interleave):
        raise BadInput("--rule and --interleave say how a canary is tried; send --canary PERCENT with them.")
    trial: dict[str, Any] | None = None
    if canary is not None:
        trial = {"percent": canary, "sticky_by": sticky_by, "interleave": interleave}
        trial |= {"max_loss": max_loss, "max_hours": max_hours}
        trial |= {"rules": rules_of(rule)} if rule else {}
    with connect(url, api_key) as client:
        found = client.set_continuous_tuning(
            name,
            every_hours=every_hours,
            min_new_judgments=min_new_judgments,
            guards=guard or [],
            recipe=parse_recipe(recipe),
            gate={"min_gain": min_gain, "max_guard_loss": max_guard_loss, "max_drift": max_drift, "alpha": alpha},
            canary=trial,
            on_success="promote" if promote else "hold",
            dry_run=dry_run,
        )
    _print(found, as_json)


@cli.command()
def show(url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """The order, what its round is at, and what is done next, or why nothing is.

    Example: adiabat continuous show
    """
    with connect(url, api_key) as client:
        _print(client.continuous_tuning(), as_json)


@cli.command()
def history(
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 30,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Every step that was taken, and why, newest first.

    Example: adiabat continuous history
    """
    with connect(url, api_key) as client:
        page = client.continuous_history(limit=limit)
    if as_json:
        print_json(page)
        return
    for step in page.steps:
        say(_line(step))


@cli.command()
def remove(url: Url = DEFAULT_URL, api_key: ApiKey = None) -> None:
    """Take the order back; a round that is under way is discarded.

    Example: adiabat continuous remove
    """
    with connect(url, api_key) as client:
        client.remove_continuous_tuning()
    say("there is no standing order")


def _print(found: ContinuousPublic, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    say(f"{found.state}: {found.said}")
    if found.next_step:
        say(f"next, within seconds: {found.next_step}")
    if found.last:
        say(f"last: {_line(found.last)}")


def _line(step: ContinuousStep) -> str:
    """The time is in the zone of whoever looks."""
    of = f" {step.encoder}" if step.encoder else ""
    return f"{datetime.fromtimestamp(step.at):%Y-%m-%d %H:%M}  {step.kind}{of}: {step.said}"
