"""`adiabat artifacts …`: the artifact store, without a service."""

from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.common import AsJson, print_json, say
from app.cli.serving import read_settings
from app.errors import NotFound

cli = typer.Typer(help="The artifact store: bring it to S3-compatible storage.", no_args_is_help=True)


@cli.callback()
def _group() -> None:
    """The artifact store: bring it to S3-compatible storage."""


@cli.command()
def copy(
    to: Annotated[str, typer.Option(help="s3://BUCKET/PREFIX; AWS_ACCESS_KEY_ID and the like as everywhere.")],
    data_dir: Annotated[Path | None, typer.Option(help="The data folder it is in; ADIABAT_DATA_DIR.")] = None,
    as_json: AsJson = False,
) -> None:
    """Copy encoders, datasets and the files of unfinished jobs to a bucket. The service must be stopped.

    Nothing is removed here, and a copy that broke may be repeated: what is there already is not sent again. The
    registry is copied first, where it moves too (ADIABAT_REGISTRY_URL). Afterwards the service is started with
    ADIABAT_ARTIFACTS_URL set to that address.

    Example: adiabat artifacts copy --to s3://adiabat/shop
    """
    from app.encoders.copying import copy_artifacts  # numpy and the database's library take a moment to import
    from app.lock import data_dir_lock
    from app.registry import Registry

    given: dict[str, Any] = {} if data_dir is None else {"data_dir": data_dir}
    settings = read_settings(given | {"artifacts_url": to})
    if not settings.artifacts_dir.exists():
        raise NotFound(f"There are no artifacts in {settings.data_dir}; name the data folder with --data-dir.")
    with data_dir_lock(settings.data_dir):
        registry = Registry(settings.registry_at)
        try:
            copied = copy_artifacts(to, settings, registry)
        finally:
            registry.close()
    if as_json:
        print_json({"copied": copied, "to": to})
        return
    say(f"copied {', '.join(copied)} to {to}")
    say("start the service with ADIABAT_ARTIFACTS_URL set to it")
