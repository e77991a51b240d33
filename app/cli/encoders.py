"""`adiabat encoders …`: list, show, register, activate, rollback, history, delete."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from app.cli.common import ApiKey, AsJson, Url, connect, console, print_json, say
from app.client import DEFAULT_URL
from app.wire.active_encoder import SwitchedPublic

cli = typer.Typer(help="Query encoders: list, register, switch, go back.", no_args_is_help=True)

Key = Annotated[str, typer.Argument(help="name or name@version", metavar="NAME[@VERSION]")]


@cli.command("list")
def list_encoders(url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """All encoders; the active one is marked with *."""
    with connect(url, api_key) as client:
        found = client.encoders()
    if as_json:
        print_json(found)
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("", "encoder", "admission", "state", "MB", "dev MRR@10", "digest"):
        table.add_column(heading, justify="right" if heading == "MB" else "left")
    for item in found:
        dev = item.metrics.get("dev")
        gain = f"{dev['before']:.3f} → {dev['after']:.3f}" if dev else ""
        mark = "*" if item.active else ""
        name, size = f"{item.name}@{item.version}", f"{item.size_bytes / 1e6:.0f}"
        table.add_row(mark, name, item.admission, item.state, size, gain, item.digest[7:19])
    console.print(table)


@cli.command()
def show(key: Key, url: Url = DEFAULT_URL, api_key: ApiKey = None) -> None:
    """Everything known of one encoder, as JSON."""
    with connect(url, api_key) as client:
        print_json(client.encoder(key))


@cli.command()
def register(
    name: str,
    path: Annotated[Path | None, typer.Option(help="Folder on the server (see ADIABAT_SOURCE_DIRS).")] = None,
    job: Annotated[str | None, typer.Option(help="Id of a finished tuning job.")] = None,
    description: Annotated[str, typer.Option()] = "",
    force: Annotated[bool, typer.Option("--force", help="Register although the probes disagree.")] = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Register an encoder from a folder or a tuning job.

    Example: adiabat encoders register bees --path /srv/models/bees
    """
    if (path is None) == (job is None):
        raise typer.BadParameter("give one of --path and --job, not both and not none")
    with connect(url, api_key) as client:
        source: dict[str, Any] = {"path": str(path.resolve())} if path else {"job": job}
        made = client.register_encoder(name, description=description, force=force, **source)
    if as_json:
        print_json(made)
        return
    say(f"{made.name}@{made.version}: {made.admission}, {made.size_bytes / 1e6:.1f} MB")
    for check in made.checks:
        say(
            f"  {'ok ' if check['passed'] else 'NO '} {check['check']}: {check['value']} (expected {check['expected']})"
        )


@cli.command()
def activate(
    key: Key,
    force: Annotated[bool, typer.Option("--force", help="Also one that its gate rejected.")] = False,
    if_generation: Annotated[int | None, typer.Option(help="Only if this generation is still active.")] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Switch the service to this encoder. Searches never stop.

    Example: adiabat encoders activate bees
    """
    with connect(url, api_key) as client:
        _print_switch(client.activate(key, force=force, if_generation=if_generation), as_json)


@cli.command()
def rollback(url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Go back to the encoder that was active before."""
    with connect(url, api_key) as client:
        _print_switch(client.rollback(), as_json)


@cli.command()
def history(url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Every generation, newest first."""
    with connect(url, api_key) as client:
        found = client.history()
    if as_json:
        print_json(found)
        return
    for item in found:
        say(f"{item.generation:>5}  {item.encoder:<32} {item.reason}{' (forced)' if item.forced else ''}")


@cli.command()
def delete(
    key: Annotated[str, typer.Argument(metavar="NAME@VERSION")],
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Delete one version; refused while anything needs it."""
    with connect(url, api_key) as client:
        client.delete_encoder(key)
    say(f"{key} deleted")


def _print_switch(switched: SwitchedPublic, as_json: bool) -> None:
    if as_json:
        print_json(switched)
        return
    now, swap = switched.encoder, switched.swap
    say(
        f"{now.name}@{now.version} is active, generation {now.generation} "
        f"(load {swap.load_ms:.0f} ms, warm-up {swap.warmup_ms:.0f} ms, switch {swap.switch_us:.1f} µs)"
    )
