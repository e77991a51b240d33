"""`adiabat registry …`: the registry database, without a service."""

from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.common import AsJson, print_json, say
from app.cli.serving import read_settings
from app.errors import NotFound

cli = typer.Typer(help="The registry database: encoders, history, datasets, judgments, jobs.", no_args_is_help=True)


@cli.callback()
def _group() -> None:
    """The registry database: encoders, history, datasets, judgments, jobs."""


@cli.command()
def copy(
    to: Annotated[str, typer.Option(help="Address of an empty database: postgresql://USER:PASSWORD@HOST/DATABASE.")],
    data_dir: Annotated[Path | None, typer.Option(help="The data folder it is in; ADIABAT_DATA_DIR.")] = None,
    as_json: AsJson = False,
) -> None:
    """Copy the registry of a data folder into another database. The service must be stopped; nothing is removed.

    Afterwards the service is started with ADIABAT_REGISTRY_URL set to that address, on the same data folder.

    Example: adiabat registry copy --to postgresql://adiabat:SECRET@db/adiabat
    """
    from app.lock import data_dir_lock  # the database's library takes a moment to import; --help must not
    from app.registry.copying import copy_registry
    from app.registry.database import Database

    given: dict[str, Any] = {} if data_dir is None else {"data_dir": data_dir}
    settings = read_settings(given)
    if not settings.registry_path.exists():
        raise NotFound(f"There is no registry at {settings.registry_path}; name the data folder with --data-dir.")
    with data_dir_lock(settings.data_dir):
        source, target = Database(settings.registry_path), Database(to)
        try:
            counts = copy_registry(source, target)
        finally:
            source.close()
            target.close()
    if as_json:
        print_json(counts)
        return
    told = ", ".join(f"{count} {table.replace('_', ' ')}" for table, count in counts.items() if count)
    say(f"copied {told} to {target.name}")
    say("start the service with ADIABAT_REGISTRY_URL set to it, on the same data folder")
