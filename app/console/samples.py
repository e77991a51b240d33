"""The sample knowledge base, where it is at hand.

The console reads it here and sends it through the public API, as it would send anybody's own.
"""

import io
import zipfile
from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse

from app.beir import CORPUS, QUERIES, splits
from app.errors import NotFound
from app.samples import at_hand

router = APIRouter(prefix="/console/samples", include_in_schema=False)


@router.get("/corpus.jsonl")
def read_corpus() -> Response:
    return FileResponse(_folder() / CORPUS, media_type="application/x-ndjson")


@router.get("/beekeeping.zip")
def read_judged(_: Request) -> Response:
    """Questions and judgments, without the corpus: they speak of stored passages."""
    folder, packed = _folder(), io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / QUERIES, QUERIES)
        for qrels in splits(folder):
            archive.write(qrels, f"qrels/{qrels.name}")
    return Response(packed.getvalue(), media_type="application/zip")


def _folder() -> Path:
    folder = at_hand()
    if folder is None:
        raise NotFound("The sample collection is not at hand here; it comes with the project's source.")
    return folder
