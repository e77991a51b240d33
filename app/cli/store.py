"""`adiabat store …`: the passage store, without a service."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.addresses import shown
from app.cli.common import AsJson, print_json, progress_bar, say
from app.cli.serving import read_settings
from app.errors import BadInput, NotFound

if TYPE_CHECKING:
    from app.passages.index_space import IndexSpace
    from app.settings import Settings

cli = typer.Typer(help="The passage store: copy it to a Qdrant server, search its words.", no_args_is_help=True)

EDGE = "edge"


@cli.callback()
def _group() -> None:
    """The passage store: copy it to a Qdrant server, search its words."""


@cli.command()
def add_lexical(
    data_dir: Annotated[Path | None, typer.Option(help="The data folder; ADIABAT_DATA_DIR.")] = None,
    as_json: AsJson = False,
) -> None:
    """Let passages that were stored before there was --mode lexical and hybrid be searched by words.

    The words come from the stored texts; nothing is embedded again, and the vectors stay as they are. Every service on
    the passages must be stopped. One that broke is repeated. With ADIABAT_QDRANT_URL it is done on that server (1.18
    or newer), in the collection that ADIABAT_COLLECTION names; otherwise the next start builds the index again.

    Example: adiabat store add-lexical --data-dir ./adiabat-data
    """
    from contextlib import nullcontext

    from app.lock import data_dir_lock
    from app.passages import open_store

    given: dict[str, Any] = {} if data_dir is None else {"data_dir": data_dir}
    settings = read_settings(given)
    space = _recorded_index_space(settings)
    with nullcontext() if settings.qdrant_url else data_dir_lock(settings.data_dir):
        store = open_store(settings, space)
        try:
            if there := store.lexical:
                count = store.count()
            else:
                with progress_bar("reading words", store.count()) as bar:
                    count = store.add_lexical(bar.update)
        finally:
            store.close()
    if as_json:
        print_json({"passages": count, "added": not there})
        return
    say(f"the words of {count} passages {'were there already' if there else 'can be searched now'}")


def _recorded_index_space(settings: "Settings") -> "IndexSpace":
    if settings.qdrant_url is None:
        from app.passages.edge_folder import recorded_index_space

        space = recorded_index_space(settings.passages_dir)
        where = f"{settings.passages_dir}; name the data folder with --data-dir"
    else:
        from app.passages import qdrant_calls

        client = qdrant_calls.client_of(settings, settings.qdrant_url)
        space = qdrant_calls.recorded_index_space(client, settings.collection)
        client.close()
        where = f"the collection {settings.collection!r} at {shown(settings.qdrant_url)}; ADIABAT_COLLECTION names it"
    if space is None:
        raise NotFound(f"There are no passages in {where}.")
    return space


@cli.command()
def copy(
    to: Annotated[str, typer.Option(help="Address of a Qdrant server; ADIABAT_QDRANT_API_KEY is its key.")],
    source: Annotated[str, typer.Option("--from", help="What is copied: the data folder's Qdrant Edge.")] = EDGE,
    data_dir: Annotated[Path | None, typer.Option(help="The data folder it is in; ADIABAT_DATA_DIR.")] = None,
    as_json: AsJson = False,
) -> None:
    """Copy all passages with their vectors to a Qdrant server. The service must be stopped; nothing is removed.

    They go into the collection that ADIABAT_COLLECTION names. A copy that broke goes on when it is repeated. Afterwards
    the service is started with ADIABAT_QDRANT_URL set to that address.

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
