"""The collection: the passage encoder it is embedded with, and the store that holds it."""

from importlib.metadata import version
from pathlib import Path

import orjson

from app.addresses import shown
from app.doctor.finding import Finding, fail, ok, warn
from app.encoders.artifacts import BASE_KEY, Manifest
from app.encoders.base import PACKAGED, base_differences, base_source
from app.encoders.digest import digest_encoder
from app.encoders.overlay import EncoderFiles
from app.encoders.spec import read_spec
from app.settings import Settings

OLDEST_QDRANT = (1, 16)
QDRANT_TIMEOUT_S = 5


def model(settings: Settings) -> Finding:
    """The passage encoder: its copy in the data folder, or what the first start would copy."""
    folder = settings.artifacts_dir / BASE_KEY
    if not folder.exists():
        return _before_first_start(settings)
    manifest = Manifest.read(folder)
    files = EncoderFiles(folder, None)
    if digest_encoder(files, read_spec(files)) != manifest.digest:
        return fail(
            "model",
            f"The files of {BASE_KEY} in {folder} are not those that were registered.",
            "Restore the folder from a backup: the stored vectors mean nothing to another encoder.",
        )
    if not _would_fetch(settings, settings.passage_encoder or manifest.source) and (
        differs := base_differences(settings, manifest)
    ):
        return fail(
            "model",
            f"The collection was embedded in another index space than the settings ask for: {'; '.join(differs)}.",
            "Unset what differs, or choose an empty ADIABAT_DATA_DIR and ingest there.",
        )
    return ok("model", f"{manifest.source}, {manifest.dimension} dimensions, is whole: {manifest.digest[:19]}.")


def _before_first_start(settings: Settings) -> Finding:
    said = settings.passage_encoder or PACKAGED
    if _would_fetch(settings, said):
        return ok("model", f"The first start fetches {said!r} from the model hub.")
    source = base_source(said, settings)
    read_spec(EncoderFiles(source, None))
    return ok("model", f"The first start copies {said}.")


def _would_fetch(settings: Settings, said: str) -> bool:
    return settings.hub and said != PACKAGED and not Path(said).expanduser().is_dir()


def store(settings: Settings) -> Finding:
    return _edge(settings) if settings.qdrant_url is None else _server(settings, settings.qdrant_url)


def _edge(settings: Settings) -> Finding:
    named = f"Qdrant Edge {version('qdrant-edge-py')}"
    current = settings.passages_dir / "CURRENT"
    if not current.exists():
        return ok("store", f"{named}; nothing is stored yet.")
    record = orjson.loads(current.read_bytes())
    if not (settings.passages_dir / record["shard"]).is_dir():
        return fail(
            "store",
            f"{current} names the shard {record['shard']}, which is not there.",
            f"Restore {settings.passages_dir} from a backup.",
        )
    space, folder = record["index_space"], settings.artifacts_dir / BASE_KEY
    if not folder.exists() or space["passage_encoder_digest"] != Manifest.read(folder).digest:
        return fail(
            "store",
            f"The stored vectors were made by another passage encoder than {BASE_KEY}.",
            "Restore artifacts and passages from the same backup.",
        )
    return ok("store", f"{named} in {settings.passages_dir}, {space['dimension']} dimensions.")


def _server(settings: Settings, url: str) -> Finding:
    from app.passages.qdrant_calls import connect  # qdrant_client takes a second to import

    client = connect(url, settings.qdrant_api_key, QDRANT_TIMEOUT_S)
    try:
        told = client.info().version
        there = client.collection_exists(settings.collection)
    except Exception as error:  # the client raises a dozen unrelated classes
        return fail(
            "store",
            f"The Qdrant server at {shown(url)} does not answer ({type(error).__name__}: {error}).",
            "Start it, or correct ADIABAT_QDRANT_URL and ADIABAT_QDRANT_API_KEY.",
        )
    finally:
        client.close()
    if tuple(int(part) for part in told.split(".")[:2]) < OLDEST_QDRANT:
        return fail("store", f"The Qdrant server at {shown(url)} is {told}, 1.16 is needed.", "Upgrade the server.")
    if not there:
        return warn(
            "store", f"Qdrant {told} at {url} has no collection {settings.collection!r} yet.", "Start the service."
        )
    return ok("store", f"Qdrant {told} at {url}, collection {settings.collection!r}.")
