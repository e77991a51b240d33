"""`adiabat serve` and `adiabat health`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from app.cli.common import ApiKey, AsJson, Url, connect, print_json, say, tell_misspelt
from app.client import DEFAULT_URL
from app.errors import BadInput
from app.settings import SECRET, Settings
from app.wire.findings import said, told


def install(cli: typer.Typer) -> None:
    cli.command()(serve)
    cli.command()(health)


def serve(
    data_dir: Annotated[Path | None, typer.Option(help="Folder for everything; ADIABAT_DATA_DIR.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to bind; beyond loopback a key is required.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; ADIABAT_PORT.")] = None,
    trainer: Annotated[
        bool | None, typer.Option("--trainer/--no-trainer", help="Start and supervise a trainer process.")
    ] = None,
) -> None:
    """Run the service, with a trainer beside it, until Ctrl-C.

    All settings are also environment variables, see docs/settings.md.

    Example: adiabat serve --data-dir ./adiabat-data --port 8000
    """
    given: dict[str, Any] = {"data_dir": data_dir, "host": host, "port": port, "trainer": trainer}
    settings = settings_of({key: value for key, value in given.items() if value is not None})
    from app.serve import serve as run  # the service's parts take a second to import; --help must not

    run(settings)


def settings_of(given: dict[str, Any]) -> Settings:
    """Settings from options, environment and defaults. Raises `BadInput` naming what is wrong."""
    try:
        return Settings(**given)
    except ValidationError as error:
        raise BadInput("\n".join(map(_unusable, error.errors()))) from None


def read_settings(given: dict[str, Any]) -> Settings:
    """`settings_of` for commands: misspelt ones are told at once, as the service's log and the doctor do."""
    tell_misspelt()
    return settings_of(given)


def _unusable(error: ErrorDetails) -> str:
    if not error["loc"]:  # of several together, which it names
        return f"The settings do not fit together: {said(error)}."
    name = str(error["loc"][0])
    found = told(error) if name in SECRET else said(error)
    return f"The setting {name} (ADIABAT_{name.upper()}) is not usable: {found}."


def health(url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Say whether the service is ready, what it serves with, and whether a trainer is alive.

    Example: adiabat health --url http://127.0.0.1:8000
    """
    with connect(url, api_key) as client:
        ready = client.ready()
    if as_json:
        print_json(ready)
        return
    encoder = ready.encoder
    name = f"{encoder.name}@{encoder.version}, generation {encoder.generation}" if encoder else "no encoder"
    say(f"{ready.status}: {ready.passages} passages, {name}; trainer {ready.trainer}")
    for note in ready.notes:
        say(f"note: {note}")
