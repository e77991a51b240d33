"""`adiabat tune`."""

from typing import Annotated, Any

import orjson
import typer

from app.cli.common import ApiKey, AsJson, Url, connect, fail, print_json, say
from app.cli.jobs import SHOWN_CHARS, print_result, watch
from app.client import DEFAULT_URL, AdiabatClient
from app.errors import BadInput
from app.recipe import AUTO, Gate
from app.wire.tuning_jobs import TuningJobPublic

GATE = Gate()


def install(cli: typer.Typer) -> None:
    cli.command()(tune)


def tune(
    name: Annotated[str, typer.Argument(help="Name of the encoder to make.")],
    dataset: Annotated[str, typer.Option(help="Dataset with the splits 'train' and 'dev'.")],
    guard: Annotated[
        list[str] | None, typer.Option(help="DATASET[:SPLIT] that must not get worse (repeatable).")
    ] = None,
    parent: Annotated[str, typer.Option(help="Encoder to start from.")] = "base",
    recipe: Annotated[str, typer.Option(help="Recipe as JSON; what is not named has good defaults.")] = "{}",
    auto: Annotated[
        bool,
        typer.Option(
            "--auto",
            help="Search for learning rate, reach, temperature and number of epochs, then average three runs; "
            "takes several times as long.",
        ),
    ] = False,
    min_gain: Annotated[
        float, typer.Option(help="Gate: what dev MRR@10 must gain at least, with confidence.")
    ] = GATE.min_gain,
    max_guard_loss: Annotated[
        float, typer.Option(help="Gate: most that a guard's MRR@10 may fall, with confidence.")
    ] = GATE.max_guard_loss,
    max_drift: Annotated[
        float | None, typer.Option(help="Gate: most that a guard's queries may drift from the base (1 - cos).")
    ] = GATE.max_drift,
    alpha: Annotated[float, typer.Option(help="Gate: the risk of each rule to be wrong.")] = GATE.alpha,
    activate: Annotated[bool, typer.Option("--activate", help="Switch to it if its gate passes.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Show progress until the job has ended.")] = True,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Tune a query encoder in the background, measured on the dataset's dev split and on the guards.

    How much of the tuning's step is kept is found on one half of dev and guards, with --auto all the rest too; what
    comes of it is proved on the other half.

    Example: adiabat tune bees --dataset beekeeping --guard beekeeping:de --guard beekeeping:es --auto
    """
    with connect(url, api_key) as client:
        job = client.create_tuning_job(
            name,
            dataset,
            parent=parent,
            guards=guard or [],
            recipe={**(AUTO if auto else {}), **parse_recipe(recipe)},
            gate={"min_gain": min_gain, "max_guard_loss": max_guard_loss, "max_drift": max_drift, "alpha": alpha},
            activate="if-gate-passes" if activate else "never",
        )
        if wait:
            job = _watch_or_leave(client, job)
    if as_json:
        print_json(job)
    elif wait:
        print_result(job)
    else:
        say(f"job {job.id} is {job.status}; 'adiabat jobs follow {job.id}' shows how it goes on")
    if wait and job.status != "succeeded":
        raise typer.Exit(1)


def _watch_or_leave(client: AdiabatClient, job: TuningJobPublic) -> TuningJobPublic:
    try:
        return watch(client, job)
    except KeyboardInterrupt:
        short = job.id[:SHOWN_CHARS]
        fail(
            f"no longer watching; the job goes on. 'adiabat jobs follow {short}' takes it up, "
            f"'adiabat jobs cancel {short}' ends it."
        )
        raise


def parse_recipe(given: str) -> dict[str, Any]:
    """What `--recipe` says. Raises `BadInput`."""
    try:
        found = orjson.loads(given)
    except ValueError as error:
        raise BadInput(f"--recipe is not a JSON object ({error}); example: '{{\"epochs\": 2}}'.") from error
    if not isinstance(found, dict):
        raise BadInput(f"--recipe is not a JSON object but {given!r}; example: '{{\"epochs\": 2}}'.")
    return found
