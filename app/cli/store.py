"""`adiabat store …`: the passage store, without a service."""

from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.common import AsJson, print_json, progress_bar, say
from app.cli.serving import read_settings
from app.errors import BadInput, NotFound

cli = typer.Typer(help="The passage store: bring it to a Qdrant server.", no_args_is_help=True)

EDGE = "edge"


@cli.callback()
def _group() -> None:
    """The passage store: bring it to a Qdrant server."""


@cli.command()
def copy(
    to: Annotated[str, typer.Option(help="Address of a Qdrant server; ADIABAT_QDRANT_API_KEY is its key.")],
    source: Annotated[str, typer.Option("--from", help="What is copied: the data folder's Qdrant Edge.")] = EDGE,
    data_dir: Annotated[Path | None, typer.Option(help="The data folder it is in; ADIABAT_DATA_DIR.")] = None,
    as_json: AsJson = False,
) -> None:
    """Copy all passages with their vectors to a Qdrant server. The service must be stopped; nothing is removed.

    They go into the collection that ADIABAT_COLLECTION names. A copy that broke may be repeated. Afterwards the service
    is started with ADIABAT_QDRANT_URL set to that address.

    Example: adiabat store copy --from edge --to http://qdrant:6333
    """
    if source != EDGE:
        raise BadInput(f"--from is {source!r}; only 'edge', the store in a data folder, can be copied.")
    from app.lock import data_dir_lock  # the stores take a second to import; --help must not
    from app.passages.copying import copy_passages
    from app.passages.edge import EdgeStore
    from app.passages.edge_folder import recorded_index_space
    from app.passages.qdrant import open_collection

    given: dict[str, Any] = {} if data_dir is None else {"data_dir": data_dir}
    settings = read_settings(given)
    space = recorded_index_space(settings.passages_dir)
    if space is None:
        raise NotFound(f"There are no passages in {settings.passages_dir}; name the data folder with --data-dir.")
    with data_dir_lock(settings.data_dir):
        target = open_collection(settings, to, space)
        edge = EdgeStore(settings.passages_dir, space, indexed_fields=settings.indexed_fields)
        try:
            with progress_bar("copying passages", edge.count()) as bar:
                count = copy_passages(edge, target, bar.update)
            there = target.count()
        finally:
            edge.close()
            target.close()
    if as_json:
        print_json({"copied": count, "there": there, "collection": settings.collection})
        return
    say(f"copied {count} passages; the collection {settings.collection!r} at {to} holds {there}")
    say("start the service with ADIABAT_QDRANT_URL set to it, on the same data folder")
