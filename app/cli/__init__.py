"""The command line `adiabat`. Most commands speak to a running service."""

import sys
from typing import Annotated

import typer

from app import __version__
from app.cli import (
    artifacts,
    auditing,
    backing_up,
    continuous,
    datasets,
    demo,
    doctor,
    encoders,
    evaluating,
    experiments,
    exporting,
    importing,
    ingesting,
    jobs,
    judging,
    keys,
    mcp,
    passages,
    queries,
    registry,
    routes,
    searching,
    serving,
    store,
    tuning,
)
from app.cli.common import fail, say
from app.cli.in_commands import in_commands
from app.client import ApiError, Unreachable
from app.errors import AdiabatError

EXIT_REFUSED = 1
EXIT_UNREACHABLE = 3
EXIT_LATER = 4  # the service says: not now (429, 503); the same command may succeed in a while
EXIT_KEY = 5  # no key, a wrong one, or one without the scope
EXIT_STOPPED = 130
EXIT_OF = {401: EXIT_KEY, 403: EXIT_KEY, 429: EXIT_LATER, 503: EXIT_LATER}


def _say_version(wanted: bool) -> None:
    if wanted:
        say(f"adiabat {__version__}")
        raise typer.Exit


def about(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say the version and end.")
    ] = False,
) -> None:
    """Dense retrieval whose query encoder can be swapped while it serves."""


cli = typer.Typer(
    name="adiabat",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
cli.callback()(about)
serving.install(cli)
ingesting.install(cli)
searching.install(cli)
passages.install(cli)
tuning.install(cli)
evaluating.install(cli)
judging.install(cli)
demo.install(cli)
doctor.install(cli)
auditing.install(cli)
mcp.install(cli)
backing_up.install(cli)
cli.add_typer(encoders.cli, name="encoders")
cli.add_typer(routes.cli, name="routes")
cli.add_typer(datasets.cli, name="datasets")
cli.add_typer(jobs.cli, name="jobs")
cli.add_typer(queries.cli, name="queries")
cli.add_typer(experiments.cli, name="experiments")
cli.add_typer(continuous.cli, name="continuous")
cli.add_typer(keys.cli, name="keys")
cli.add_typer(artifacts.cli, name="artifacts")
cli.add_typer(exporting.cli, name="export")
cli.add_typer(importing.cli, name="import")
cli.add_typer(registry.cli, name="registry")
cli.add_typer(store.cli, name="store")


def main() -> None:
    """Errors become one sentence on standard error, and an exit code by kind: docs/operations.md lists them."""
    try:
        cli()
    except ApiError as error:
        fail(f"{in_commands(error.detail, error.slug)} [{error.slug}]")
        sys.exit(EXIT_OF.get(error.status, EXIT_REFUSED))
    except AdiabatError as error:
        fail(error.detail)
        sys.exit(EXIT_REFUSED)
    except OSError as error:
        fail(f"{error.filename or 'A file'}: {(error.strerror or str(error)).lower()}.")
        sys.exit(EXIT_REFUSED)
    except Unreachable as error:
        fail(str(error))
        sys.exit(EXIT_UNREACHABLE)
    except KeyboardInterrupt:
        fail("stopped")
        sys.exit(EXIT_STOPPED)
