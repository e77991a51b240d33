"""`adiabat evaluate --mteb`: encoders on the public benchmark's tasks, the base beside them, measured here."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.table import Table

from app.cli.common import console, print_json, progress_bar, say
from app.cli.packing import unpack_into
from app.client import AdiabatClient
from app.errors import BadInput

BASE = "base@1"
MAX_LANGUAGES = 3  # that a table names
Results = dict[tuple[str, str, str], dict[str, Any]]


def benchmark(client: AdiabatClient, names: list[str], encoders: list[str], as_json: bool) -> None:
    """Raises `BadInput` where MTEB is not installed or a task's data cannot be had; no encoder is fetched then."""
    try:
        from app.adapters.mteb import AdiabatEncoder, loaded_task, measured
    except ImportError as error:
        raise BadInput("To measure on tasks of MTEB, install it: pip install 'adiabat[mteb]'.") from error
    digests = {BASE: client.encoder(BASE).digest} | dict(_resolved(client, key) for key in encoders)
    tasks = [loaded_task(name) for name in names]
    results: Results = {}
    with TemporaryDirectory() as scratch, progress_bar("measuring", len(tasks) * len(digests)) as bar:
        folders = {key: _fetched(client, key, Path(scratch)) for key in digests}
        models = {key: AdiabatEncoder(folders[key], folders[BASE], f"adiabat/{key}") for key in digests}
        for done, task in enumerate(tasks):
            for key, row in measured(task, models):
                place = row["task"], row["split"], row["subset"]
                results.setdefault(place, row | {"scores": {}})["scores"][key] = row["scores"]
            bar.update((done + 1) * len(digests), task.metadata.name)
    if as_json:
        print_json({"encoders": digests, "results": list(results.values())})
    else:
        _print(list(results.values()), list(digests))


def _resolved(client: AdiabatClient, key: str) -> tuple[str, str]:
    """`name@version` and digest of what `key` names now."""
    found = client.active_encoder().encoder if key == "active" else client.encoder(key)
    return f"{found.name}@{found.version}", found.digest


def _fetched(client: AdiabatClient, key: str, scratch: Path) -> Path:
    archive = scratch / f"{key}.tar"
    client.download_encoder(key, archive)
    unpack_into(archive, scratch / f"folder-{key}")
    archive.unlink()
    return scratch / f"folder-{key}"


def _print(rows: list[dict[str, Any]], keys: list[str]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("task", "split", "languages", "measure"):
        table.add_column(heading)
    for key in keys:
        table.add_column(key, justify="right")
        if key != BASE:
            table.add_column("change", justify="right")
    for row in rows:
        scores = {key: row["scores"][key]["main_score"] for key in keys}
        cells = [f"{scores[BASE]:.4f}"]
        for key in keys[1:]:
            cells += [f"{scores[key]:.4f}", f"{scores[key] - scores[BASE]:+.4f}"]
        table.add_row(row["task"], row["split"], _languages(row), row["measure"], *cells)
    console.print(table)
    say(f"passages are embedded by {BASE} throughout, as they are stored; --json has every measure of the tasks")


def _languages(row: dict[str, Any]) -> str:
    known = row["languages"][:MAX_LANGUAGES]
    more = len(row["languages"]) - len(known)
    return ", ".join(known) + (f" and {more} more" if more else "")
