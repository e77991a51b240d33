"""`adiabat datasets …`: list, show, put, delete."""

import tempfile
import zipfile
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from app.cli.common import ApiKey, AsJson, Url, connect, console, print_json, say
from app.client import DEFAULT_URL
from app.errors import BadDataset
from app.wire.datasets import DatasetPublic

cli = typer.Typer(help="Judged queries in BEIR shape: for tuning, and as guards.", no_args_is_help=True)

HUB = "hub:"

Name = Annotated[str, typer.Argument(help="The dataset's name.")]


@cli.command("list")
def list_datasets(url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """All datasets with their splits.

    Example: adiabat datasets list
    """
    with connect(url, api_key) as client:
        found = client.datasets()
    if as_json:
        print_json(found)
        return
    for item in found:
        say(f"{item.name}: {_splits(item)}; {_searched(item)}")


@cli.command()
def show(name: Name, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Queries and pairs per split and language, and judgments whose passage is not stored.

    Example: adiabat datasets show beekeeping
    """
    with connect(url, api_key) as client:
        found = client.dataset(name)
    if as_json:
        print_json(found)
        return
    say(f"{found.name}: {found.queries} queries, {_searched(found)}, digest {found.digest[7:19]}")
    if found.source:
        say(f"from the {found.source}")
    table = Table(box=None, pad_edge=False)
    for heading in ("split", "queries", "pairs", "languages"):
        table.add_column(heading, justify="right" if heading in ("queries", "pairs") else "left")
    for split, counts in found.splits.items():
        languages = ", ".join(f"{language} {count}" for language, count in sorted(counts.languages.items()))
        table.add_row(split, str(counts.queries), str(counts.pairs), languages)
    console.print(table)
    _say_unknown(found)


@cli.command("put")
def put_dataset(
    name: Name,
    source: Annotated[
        str,
        typer.Argument(
            help="Folder or archive with queries.jsonl and qrels/SPLIT.tsv, NDJSON (.jsonl, .ndjson), or "
            "hub:OWNER/NAME[@REVISION]."
        ),
    ],
    corpus: Annotated[
        bool, typer.Option("--corpus/--no-corpus", help="Whether a folder's or a repository's corpus is taken too.")
    ] = True,
    qrels: Annotated[
        str | None,
        typer.Option(help="With hub:… the repository that has the judgments, OWNER/NAME[@REVISION], if it is another."),
    ] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Upload a dataset. Without a corpus its judgments name stored passages; with one it is searched on its own.

    A line of NDJSON: {"query": "why smoke a hive", "relevant": ["en-001"], "split": "train", "lang": "en"}

    What is on the hub is fetched by the server, where ADIABAT_HUB allows it:
    adiabat datasets put scifact hub:BeIR/scifact --qrels BeIR/scifact-qrels

    Example: adiabat datasets put beekeeping samples --no-corpus
    """
    with connect(url, api_key) as client, tempfile.TemporaryDirectory() as scratch:
        if source.startswith(HUB):
            hub, revision = _revised(source.removeprefix(HUB))
            judged, qrels_revision = _revised(qrels)
            made = client.put_dataset(
                name, hub=hub, revision=revision, qrels=judged, qrels_revision=qrels_revision, corpus=corpus
            )
        elif qrels is not None:
            raise typer.BadParameter("--qrels goes with a source on the hub, as hub:BeIR/scifact")
        else:
            here = Path(source)
            made = client.put_dataset(
                name, here if here.is_file() else zip_folder(here, Path(scratch) / "dataset.zip", corpus)
            )
    if as_json:
        print_json(made)
        return
    say(f"{made.name}: {made.queries} queries ({_splits(made)}), digest {made.digest[7:19]}")
    _say_unknown(made)


@cli.command()
def delete(name: Name, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Delete a dataset; refused while an unfinished job was started with it.

    Example: adiabat datasets delete beekeeping
    """
    with connect(url, api_key) as client:
        client.delete_dataset(name)
    if as_json:
        print_json({"deleted": name})
    else:
        say(f"{name} deleted")


def _revised(said: str | None) -> tuple[str | None, str | None]:
    """OWNER/NAME and, after an '@', the revision."""
    name, _, revision = (said or "").partition("@")
    return name or None, revision or None


def _splits(item: DatasetPublic) -> str:
    return ", ".join(f"{split} {counts.queries}" for split, counts in item.splits.items())


def _searched(item: DatasetPublic) -> str:
    return f"own corpus of {item.passages}" if item.passages is not None else "over the stored passages"


def _say_unknown(item: DatasetPublic) -> None:
    if (unknown := item.unknown_passages) and unknown.count:
        some = ", ".join(unknown.ids[:5])
        say(f"{unknown.count} judged passages are not stored ({some} …); ingest them, or they cannot be found")


def zip_folder(folder: Path, archive: Path, corpus: bool = True) -> Path:
    """Pack what a dataset needs. Raises `BadDataset` where it is not there."""
    if not folder.exists():
        raise BadDataset(f"{folder} does not exist; give a folder, an archive, NDJSON, or hub:OWNER/NAME.")
    files = [folder / "queries.jsonl", *sorted((folder / "qrels").glob("*.tsv"))]
    if not files[0].is_file() or len(files) == 1:
        raise BadDataset(
            f"{folder} must be an archive, NDJSON, or a folder with queries.jsonl and qrels/<split>.tsv in it."
        )
    if corpus and (folder / "corpus.jsonl").is_file():
        files.append(folder / "corpus.jsonl")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in files:
            packed.write(path, path.relative_to(folder))
    return archive
