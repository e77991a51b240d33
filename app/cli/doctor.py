"""`adiabat doctor`: look at everything the service stands on, and say what to do about each finding."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from app.cli.common import ApiKey, AsJson, console, print_json, say
from app.cli.serving import settings_of
from app.doctor.finding import Finding, Level, fail
from app.errors import BadInput

COLOURS = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}


def install(cli: typer.Typer) -> None:
    cli.command()(doctor)


def doctor(
    data_dir: Annotated[Path | None, typer.Option(help="The service's data folder; ADIABAT_DATA_DIR.")] = None,
    url: Annotated[str | None, typer.Option(envvar="ADIABAT_URL", help="Also ask the service there.")] = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Check this machine, the settings, the data folder and, with --url, a running service. Changes nothing.

    Exits with 1 where something fails.

    Example: adiabat doctor --url http://127.0.0.1:8000
    """
    found = []
    for finding in _findings(data_dir, url, api_key):
        found.append(finding)
        if not as_json:
            show(finding)
    levels = Counter(finding.level for finding in found)
    if as_json:
        print_json({"findings": found, "failed": levels[Level.FAIL], "warned": levels[Level.WARN]})
    else:
        say(f"{levels[Level.OK]} ok, {levels[Level.WARN]} to look at, {levels[Level.FAIL]} failed")
    if levels[Level.FAIL]:
        raise typer.Exit(1)


def _findings(data_dir: Path | None, url: str | None, api_key: str | None) -> Iterator[Finding]:
    from app.doctor.examine import examine, examine_machine  # the parts take a second to import; --help must not
    from app.doctor.service import service

    yield from examine_machine()
    try:
        settings = settings_of({"data_dir": data_dir} if data_dir else {})
    except BadInput as error:
        yield fail("settings", error.detail, "docs/settings.md says what each setting takes.")
    else:
        yield from examine(settings)
    if url is not None:
        yield from service(url, api_key)


def show(finding: Finding) -> None:
    console.print(f"{finding.level:<5}", style=COLOURS[finding.level], end="")
    say(f"{finding.check:<9} {finding.said}")
    if finding.mend:
        say(f"{'':14} {finding.mend}")
