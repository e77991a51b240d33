"""The graph of an architecture, exported once: `python -m app.encoders.export` does it, in a child.

torch and transformers are imported in the child alone. What comes out is proven there, with random weights,
before it gets its name.
"""

import hashlib
import json
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from app.encoders.child import Limits, confine, run_child
from app.encoders.graph import is_whole
from app.encoders.half_made import half_made
from app.encoders.overlay import EncoderFiles
from app.encoders.spec import EncoderSpec, read_spec
from app.errors import AdiabatError, EncoderBroken

EXPORT_TIMEOUT_S = 900
_FORMAT = "adiabat graph 1"


def graph_key(files: EncoderFiles, spec: EncoderSpec) -> str:
    """Hex digest of all that the graph depends on: the computation, the parameters' shapes, the exporter."""
    parameters = [[name, files.shape(name)] for name in files.tensor_names()]
    exporter = [_FORMAT, version("torch"), version("transformers")]
    said = json.dumps([exporter, spec.graph_json(), parameters], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()


def export_graph(
    files: EncoderFiles, spec: EncoderSpec, graphs_dir: Path, *, timeout_s: float = EXPORT_TIMEOUT_S
) -> Path:
    """The folder of this architecture's graph below `graphs_dir`, exported now unless it is there.

    Raises `EncoderBroken` where the export fails or the graph does not compute what torch does.
    """
    key = graph_key(files, spec)
    folder = graphs_dir / key[:32]
    if is_whole(folder):
        return folder
    graphs_dir.mkdir(parents=True, exist_ok=True)
    half = half_made(graphs_dir)
    try:
        _run_child({"folders": _folders(files), "key": key, "dest": str(half)}, timeout_s)
        _place(half, folder)
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return folder


def _place(half: Path, folder: Path) -> None:
    """Give the folder its name, in place of a damaged one; another process may have been faster, and theirs stays."""
    if not is_whole(folder):
        shutil.rmtree(folder, ignore_errors=True)
    try:
        half.rename(folder)
    except OSError:
        if not is_whole(folder):
            raise


def _folders(files: EncoderFiles) -> list[str]:
    return [str(files.own), *(_folders(files.base) if files.base else [])]


def _run_child(arguments: dict[str, Any], timeout_s: float) -> None:
    limits = Limits(timeout_s=timeout_s)  # of memory it has no more than whoever starts it
    child = run_child("app.encoders.export", json.dumps(arguments), limits, doing="The export of the encoder's graph")
    lines = child.out.strip().splitlines()
    if child.status == 0 and lines and lines[-1] == "exported":
        return
    raise EncoderBroken(f"The encoder's graph cannot be exported: {lines[-1] if lines else child.last_word}")


def main(arguments: dict[str, Any]) -> None:
    """Export into `dest`; the last line of standard output is "exported" or the reason why not."""
    from app.encoders.export_torch import build_graph

    files = EncoderFiles(Path(arguments["folders"][-1]))
    for folder in reversed(arguments["folders"][:-1]):
        files = EncoderFiles(Path(folder), files)
    try:
        build_graph(files, read_spec(files), arguments["key"], Path(arguments["dest"]))
    except AdiabatError as error:
        print(error.detail)
        sys.exit(1)
    print("exported")


if __name__ == "__main__":
    main(json.loads(confine()))
