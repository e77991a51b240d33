"""`adiabat jobs …`: list, show, follow, cancel, resume. A job is named by the beginning of its id."""

from datetime import datetime, timedelta
from typing import Annotated

import typer
from rich.table import Table

from app.cli.common import (
    ApiKey,
    AsJson,
    Bar,
    Url,
    connect,
    console,
    errors,
    print_json,
    print_json_line,
    progress_bar,
    say,
)
from app.client import DEFAULT_URL, AdiabatClient
from app.errors import BadInput, JobNotFound
from app.wire.tuning_jobs import JobEventPublic, TuningJobPublic

ID_CHARS = 32
LEAST_CHARS = 4
SHOWN_CHARS = 12

cli = typer.Typer(
    help="Tuning jobs in the background: look at them, follow, cancel, resume.\n\nExample: adiabat jobs follow 3f0c",
    no_args_is_help=True,
)
JobId = Annotated[
    str, typer.Argument(metavar="JOB", help=f"Its id, or at least {LEAST_CHARS} letters of the beginning.")
]


@cli.command("list")
def list_jobs(url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """All jobs, newest first.

    Example: adiabat jobs list
    """
    with connect(url, api_key) as client:
        found = client.tuning_jobs()
    if as_json:
        print_json(found)
        return
    table = Table("job", "name", "queued at", "took", "status", box=None, pad_edge=False)
    for job in found:
        table.add_row(job.id[:SHOWN_CHARS], job.name, _clock(job.created_at), _took(job), _status(job))
    console.print(table)


def _clock(at: float) -> str:
    """In the time zone of whoever looks."""
    return f"{datetime.fromtimestamp(at):%Y-%m-%d %H:%M}"


def _took(job: TuningJobPublic) -> str:
    """From its trainer's first word to its end, or until now; nothing for a job that no trainer has had."""
    if job.started_at is None:
        return ""
    until = job.finished_at or datetime.now().timestamp()
    return str(timedelta(seconds=round(until - job.started_at)))


def _status(job: TuningJobPublic) -> str:
    steps = f" {job.progress['step']}/{job.progress['steps']}" if "steps" in job.progress else ""
    return f"{job.status}{steps}"


@cli.command()
def show(job_id: JobId, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """How a job stands, or ended, with MRR@10 before and after.

    Example: adiabat jobs show 3f0c
    """
    with connect(url, api_key) as client:
        _print(find(client, job_id), as_json)


@cli.command()
def cancel(job_id: JobId, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Ask a job to stop; an interrupted one is given up, and its files with it.

    Example: adiabat jobs cancel 3f0c
    """
    with connect(url, api_key) as client:
        _print(client.cancel_tuning_job(find(client, job_id).id), as_json)


@cli.command()
def resume(
    job_id: JobId,
    wait: Annotated[bool, typer.Option("--wait", help="Follow it until it has ended.")] = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Let an interrupted job go on from its last checkpoint.

    Example: adiabat jobs resume 3f0c --wait
    """
    with connect(url, api_key) as client:
        job = client.resume_tuning_job(find(client, job_id).id)
        job = watch(client, job) if wait else job
    _print(job, as_json)
    if wait:
        _exit(job)


@cli.command()
def follow(job_id: JobId, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """All that happened to a job and then what happens, until it has ended; with --json one event a line.

    Example: adiabat jobs follow 3f0c
    """
    with connect(url, api_key) as client:
        job = find(client, job_id)
        if not as_json:
            print_result(ended := watch(client, job))
            _exit(ended)
            return
        for event in client.job_events(job.id):
            print_json_line(event)
        _exit(client.tuning_job(job.id))


def _exit(job: TuningJobPublic) -> None:
    """As `adiabat tune` ends: 1 where the job made no encoder that may be activated."""
    if job.status != "succeeded":
        raise typer.Exit(1)


def find(client: AdiabatClient, beginning: str) -> TuningJobPublic:
    """The one job whose id begins so. Raises `BadInput` where it is too short or fits several, `JobNotFound`."""
    if len(beginning) == ID_CHARS:
        return client.tuning_job(beginning)
    if len(beginning) < LEAST_CHARS:
        raise BadInput(f"{beginning!r} is too short; give at least {LEAST_CHARS} letters of the job's id.")
    found = [job for job in client.tuning_jobs() if job.id.startswith(beginning.lower())]
    if not found:
        raise JobNotFound(f"No tuning job's id begins with {beginning!r}; 'adiabat jobs list' shows them.")
    if len(found) > 1:
        ids = ", ".join(job.id[:SHOWN_CHARS] for job in found[:5])
        raise BadInput(f"{len(found)} jobs begin with {beginning!r} ({ids}); give more of the id.")
    return found[0]


def watch(client: AdiabatClient, job: TuningJobPublic) -> TuningJobPublic:
    """Show what happens until the job has ended; the finished job."""
    with progress_bar(f"tuning {job.name}") as bar:
        for event in client.job_events(job.id):
            _show(event, bar)
    return client.tuning_job(job.id)


def _show(event: JobEventPublic, bar: Bar) -> None:
    data = event.data
    if event.kind == "progress":
        loss = f", loss {data['loss']:.4f}" if "loss" in data else ""
        bar.update(data.get("step"), f"{data.get('phase', '')}{loss}", data.get("steps"), data.get("eta_s"))
    elif event.kind == "measured":
        figures = {"dev": data["dev"], **data["guards"]}
        shown = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
        step = f" step {data['step']}" if "step" in data else ""
        half = f" ({data['half']} half)" if "half" in data else ""
        _note(f"MRR@10 {data['when']}{step}{half}: {shown}")
    elif event.kind == "log":
        _note(data["message"])
    else:
        status, reason = data["status"], data.get("reason", "")
        _note(reason if reason.startswith(status) else f"{status}: {reason}" if reason else status)


def _note(line: str) -> None:
    """On the console of the progress bar, which makes room for it."""
    errors.print(line, soft_wrap=True)


def _print(job: TuningJobPublic, as_json: bool) -> None:
    if as_json:
        print_json(job)
    else:
        print_result(job)


def print_result(job: TuningJobPublic) -> None:
    """Status, the gate's sentences, and a table of dev and guards before and after, of the prove halves."""
    encoder = job.encoder
    made = f", made {encoder.name}@{encoder.version}" if encoder else ""
    say(f"job {job.id}: {job.status}{made}")
    result = job.result
    if not result:
        if job.reason:
            say(f"  {job.reason}")
        return
    for sentence in result["gate"]["reasons"]:
        say(f"  {sentence}")
    if chosen := result.get("chosen"):
        names = {"learning_rate": "rate", "soften": "share of the step that is kept"}
        say("  " + ", ".join(f"{names.get(name, name)} {value:g}" for name, value in chosen.items()))
    table = Table(box=None, pad_edge=False)
    for heading in ("MRR@10", "queries", "before", "after", "change", "95% interval", "relative"):
        name = heading == "MRR@10"
        table.add_column(heading, justify="left" if name else "right", no_wrap=not name, overflow="fold")
    for name, figures in {"dev": result["dev"], **result["guards"]}.items():
        proved = "low" in figures  # jobs of earlier versions have less
        table.add_row(
            name,
            str(figures.get("queries", "")),
            f"{figures['before']:.4f}",
            f"{figures['after']:.4f}",
            f"{figures['after'] - figures['before']:+.4f}",
            f"{figures['low']:+.4f} to {figures['high']:+.4f}" if proved else "",
            f"{figures['relative']:+.1%}" if "relative" in figures else "",
        )
    console.print(table)
    if result.get("guards_relative") is not None:
        say(f"mean relative change of the guards: {result['guards_relative']:+.2%}")
