"""`adiabat tune` and `adiabat jobs`."""

from typing import Annotated, Any

import orjson
import typer
from rich.table import Table

from app.cli.common import ApiKey, AsJson, Url, connect, console, fail, print_json, progress_bar, say
from app.client import DEFAULT_URL, AdiabatClient
from app.errors import BadInput
from app.wire.tuning_jobs import TuningJobPublic


def install(cli: typer.Typer) -> None:
    cli.command()(tune)
    cli.command()(jobs)


def tune(
    name: Annotated[str, typer.Argument(help="Name of the encoder to make.")],
    dataset: Annotated[str, typer.Option(help="Dataset with the splits 'train' and 'dev'.")],
    guard: Annotated[
        list[str] | None, typer.Option(help="DATASET[:SPLIT] that must not get worse (repeatable).")
    ] = None,
    parent: Annotated[str, typer.Option(help="Encoder to start from.")] = "base",
    recipe: Annotated[str, typer.Option(help="Recipe as JSON; what is not named has good defaults.")] = "{}",
    min_gain: Annotated[float, typer.Option(help="Gate: what dev MRR@10 must gain more than.")] = 0.0,
    max_guard_loss: Annotated[float, typer.Option(help="Gate: most that a guard's MRR@10 may fall.")] = 0.01,
    activate: Annotated[bool, typer.Option("--activate", help="Switch to it if its gate passes.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Show progress until the job has ended.")] = True,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Tune a query encoder in the background, measured on the dataset's dev split and on the guards.

    Example: adiabat tune bees --dataset beekeeping --guard beekeeping:de --guard beekeeping:es
    """
    with connect(url, api_key) as client:
        job = client.create_tuning_job(
            name,
            dataset,
            parent=parent,
            guards=guard or [],
            recipe=_parse_recipe(recipe),
            gate={"min_gain": min_gain, "max_guard_loss": max_guard_loss},
            activate="if-gate-passes" if activate else "never",
        )
        if wait:
            job = _watch_or_leave(client, job)
    if as_json:
        print_json(job)
    elif wait:
        print_result(job)
    else:
        say(f"job {job.id} is {job.status}; 'adiabat jobs {job.id}' shows it")
    if wait and job.status != "succeeded":
        raise typer.Exit(1)


def jobs(
    job_id: Annotated[str | None, typer.Argument(help="Show this job; without it, list all.")] = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="Ask the job to stop.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Show progress until it has ended.")] = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """List tuning jobs, show one, cancel it.

    Example: adiabat jobs 3f0c… --cancel
    """
    with connect(url, api_key) as client:
        if job_id is None:
            _print_list(client.tuning_jobs(), as_json)
            return
        job = client.cancel_tuning_job(job_id) if cancel else client.tuning_job(job_id)
        job = watch(client, job) if wait else job
    if as_json:
        print_json(job)
    else:
        print_result(job)


def _watch_or_leave(client: AdiabatClient, job: TuningJobPublic) -> TuningJobPublic:
    try:
        return watch(client, job)
    except KeyboardInterrupt:
        fail(f"no longer watching; job {job.id} goes on. 'adiabat jobs {job.id}' shows it, --cancel ends it.")
        raise


def watch(client: AdiabatClient, job: TuningJobPublic) -> TuningJobPublic:
    """Show progress until the job has ended; the finished job."""
    with progress_bar(f"tuning {job.name}") as bar:

        def on_progress(seen: TuningJobPublic) -> None:
            progress = seen.progress
            phase = progress.get("phase", seen.status)
            loss = f", loss {progress['loss']:.4f}" if "loss" in progress else ""
            bar.update(progress.get("step", 0), f"({phase}{loss})", progress.get("steps"))

        return client.wait_for_job(job.id, on_progress)


def print_result(job: TuningJobPublic) -> None:
    """Status, verdict, and a table of dev and guards before and after."""
    encoder = job.encoder
    made = f", made {encoder.name}@{encoder.version}" if encoder else ""
    say(f"job {job.id}: {job.status}{made}")
    if job.reason:
        say(f"  {job.reason}")
    result = job.result
    if not result:
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("MRR@10", "before", "after", "change", "relative"):
        table.add_column(heading, justify="left" if heading == "MRR@10" else "right")
    for name, figures in {"dev": result["dev"], **result["guards"]}.items():
        before, after = figures["before"], figures["after"]
        relative = f"{(after - before) / before:+.1%}" if before else ""
        table.add_row(name, f"{before:.4f}", f"{after:.4f}", f"{after - before:+.4f}", relative)
    console.print(table)
    if result["guards_relative"] is not None:
        say(f"mean relative change of the guards: {result['guards_relative']:+.2%}")


def _print_list(found: list[TuningJobPublic], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    for job in found:
        progress = job.progress
        steps = f" {progress['step']}/{progress['steps']}" if "steps" in progress else ""
        say(f"{job.id}  {job.name:<24} {job.status}{steps}")


def _parse_recipe(given: str) -> dict[str, Any]:
    try:
        found = orjson.loads(given)
    except ValueError as error:
        raise BadInput(f"--recipe is not a JSON object ({error}); example: '{{\"epochs\": 2}}'.") from error
    if not isinstance(found, dict):
        raise BadInput(f"--recipe is not a JSON object but {given!r}; example: '{{\"epochs\": 2}}'.")
    return found
