"""Where the sample knowledge base lies: beside the package in a checkout, else among what was installed with it."""

from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from app.beir import CORPUS


def at_hand() -> Path | None:
    checkout = Path(__file__).parents[1] / "samples"
    if (checkout / CORPUS).is_file():
        return checkout
    try:
        installed = files("adiabat") or []
    except PackageNotFoundError:
        return None
    found = (Path(str(file.locate())) for file in installed if file.match(f"share/adiabat/samples/{CORPUS}"))
    return next((corpus.resolve().parent for corpus in found if corpus.is_file()), None)
