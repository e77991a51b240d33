"""`adiabat export …`: what can be taken away, in formats that other programs read."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from app.cli import encoders
from app.cli.common import ApiKey, AsJson, Url, connect, print_json, progress_bar, say
from app.cli.searching import parse_filter
from app.client import DEFAULT_URL
from app.errors import BadInput

PAGE = 500

cli = typer.Typer(help="Take encoders away, and passages with their vectors.", no_args_is_help=True)
cli.command("encoder", help=(encoders.export.__doc__ or "").replace("encoders export", "export encoder"))(
    encoders.export
)


@cli.command()
def passages(
    file: Annotated[Path, typer.Argument(metavar="FILE.parquet", help="What is there is replaced.")],
    filter: Annotated[str | None, typer.Option(help="Only some: Qdrant filter as JSON, or KEY=VALUE.")] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Passages with their vectors as Parquet: id, title, text, metadata (JSON), vector (a list of fp32).

    What made the vectors is told in the file's own metadata, under `adiabat`. The service goes on serving.

    Example: adiabat export passages passages.parquet
    """
    from app.corpus.parquet import PassageWriter  # pyarrow is an extra, and takes its time

    conditions = parse_filter(filter)
    draft = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    with connect(url, api_key) as client:
        base, total = client.encoder("base@1"), client.count_passages(conditions)
        if not total:
            raise BadInput("There is no passage to export.")
        about = json.dumps({"passage_encoder": base.digest})
        try:
            with progress_bar("exporting", total) as bar, PassageWriter(draft, about) as writer:
                done, cursor = 0, None
                while True:
                    page = client.passages(cursor, PAGE, conditions, with_vectors=True)
                    writer.write([passage.model_dump() for passage in page.passages])
                    done, cursor = done + len(page.passages), page.next_cursor
                    bar.update(done)
                    if cursor is None:
                        break
            draft.replace(file)
        finally:
            draft.unlink(missing_ok=True)
    if as_json:
        print_json({"file": str(file.resolve()), "passages": done})
        return
    say(f"{done} passages with their vectors are in {file}")
