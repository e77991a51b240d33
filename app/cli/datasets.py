"""`adiabat datasets …`: list and put."""

import tempfile
import zipfile
from pathlib import Path
from typing import Annotated

import typer

from app.cli.common import ApiKey, AsJson, Url, connect, print_json, say
from app.client import DEFAULT_URL
from app.errors import BadDataset

cli = typer.Typer(help="Judged queries in BEIR shape: for tuning, and as guards.", no_args_is_help=True)


@cli.command("list")
def list_datasets(url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """All datasets with their splits."""
    with connect(url, api_key) as client:
        found = client.datasets()
    if as_json:
        print_json(found)
        return
    for item in found:
        splits = ", ".join(f"{name} {counts['queries']}" for name, counts in item.splits.items())
        corpus = f"own corpus of {item.passages}" if item.passages is not None else "over the stored passages"
        say(f"{item.name}: {splits}; {corpus}")


@cli.command("put")
def put_dataset(
    name: str,
    source: Annotated[Path, typer.Argument(help="Folder or zip with queries.jsonl and qrels/<split>.tsv.")],
    corpus: Annotated[
        bool, typer.Option("--corpus/--no-corpus", help="Whether a folder's corpus.jsonl is sent too.")
    ] = True,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Upload a dataset. Without a corpus its qrels name stored passages; with one it is searched on its own.

    Example: adiabat datasets put beekeeping samples --no-corpus
    """
    with connect(url, api_key) as client, tempfile.TemporaryDirectory() as scratch:
        archive = source if source.is_file() else zip_folder(source, Path(scratch) / "dataset.zip", corpus)
        made = client.put_dataset(name, archive)
    if as_json:
        print_json(made)
        return
    splits = ", ".join(f"{split} {counts['queries']}" for split, counts in made.splits.items())
    say(f"{made.name}: {made.queries} queries ({splits}), digest {made.digest[7:19]}")


def zip_folder(folder: Path, archive: Path, corpus: bool = True) -> Path:
    """Pack what a dataset needs. Raises `BadDataset` where it is not there."""
    files = [folder / "queries.jsonl", *sorted((folder / "qrels").glob("*.tsv"))]
    if not files[0].is_file() or len(files) == 1:
        raise BadDataset(f"{folder} must be a zip, or a folder with queries.jsonl and qrels/<split>.tsv in it.")
    if corpus and (folder / "corpus.jsonl").is_file():
        files.append(folder / "corpus.jsonl")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in files:
            packed.write(path, path.relative_to(folder))
    return archive
