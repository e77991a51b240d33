"""The passage encoder that is named, run beside everything else: to ask it, nothing is registered."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from app.encoders.artifacts import BASE_KEY, ArtifactStore, Manifest
from app.encoders.base import PACKAGED, base_differences, base_source, told_of
from app.encoders.digest import digest_encoder
from app.encoders.lanes import PassageLanes, passage_lanes
from app.encoders.overlay import EncoderFiles
from app.encoders.spec import EncoderSpec, read_spec, with_prompts
from app.errors import IndexSpaceMismatch
from app.settings import Settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Named:
    """`said` is how the user calls it."""

    said: str
    files: EncoderFiles
    spec: EncoderSpec


def named_encoder(settings: Settings) -> Named:
    """The data folder's base, or what its first start would make of the settings.

    Raises `IndexSpaceMismatch` where the two differ, and what `read_spec` and `base_source` do.
    """
    folder = settings.artifacts_dir / BASE_KEY
    if not folder.exists():
        said = settings.passage_encoder or PACKAGED
        files = EncoderFiles(base_source(said, settings))
        with told_of(said):
            spec = with_prompts(read_spec(files), query=settings.query_prompt, passage=settings.passage_prompt)
        return Named(said=said.removeprefix("packaged:"), files=files, spec=spec)
    manifest = Manifest.read(folder)
    if differs := base_differences(settings, manifest):
        raise IndexSpaceMismatch(
            f"{settings.data_dir} is embedded by another encoder; it differs in {'; '.join(differs)}. "
            "Take the collection over into a data folder of its own (--data-dir).",
            differences=differs,
        )
    files = EncoderFiles(folder)
    return Named(said=manifest.source.removeprefix("packaged:"), files=files, spec=read_spec(files))


def require_same(named: Named, base: str) -> None:
    """Raise `IndexSpaceMismatch` unless the encoder that was asked is the base, whose digest it is.

    The base may be in a bucket, where nobody looked before the sample was compared.
    """
    if (digest := digest_encoder(named.files, named.spec)) != base:
        raise IndexSpaceMismatch(
            f"The sample was compared with {named.said} (digest {digest}), and the base of these services is another "
            f"encoder ({base}): name that one with --encoder, or take the collection over into services of its own."
        )


class Asked:
    """The named encoder, loaded. Its graph, where none was there, is kept by `keep_graph` alone."""

    def __init__(self, named: Named, lanes: PassageLanes, graphs: Path) -> None:
        self.named = named
        self._lanes = lanes
        self._graphs = graphs

    def embed(self, texts: Sequence[str], prompt: str) -> NDArray[np.float32]:
        """Vectors of `prompt` + each text, shape (n, dim)."""
        return self._lanes.embed([prompt + text for text in texts])

    def lengths(self, texts: Sequence[str], prompt: str) -> list[int]:
        """Tokens of `prompt` + each text, after cutting to the maximum length."""
        return self._lanes.lengths([prompt + text for text in texts])

    def keep_graph(self, artifacts: ArtifactStore) -> None:
        """Exporting it again would take as long again."""
        if self._graphs != artifacts.graphs:
            shutil.copytree(self._graphs, artifacts.graphs, dirs_exist_ok=True)


@contextmanager
def asking(named: Named, settings: Settings) -> Iterator[Asked]:
    """Outside of a data folder that has been served from, nothing is written that stays."""
    with TemporaryDirectory(prefix="adiabat-") as scratch:
        kept = settings.artifacts_dir / "graphs"
        graphs = kept if kept.is_dir() else Path(scratch) / "graphs"
        lanes = passage_lanes(
            named.files,
            named.spec,
            kind=settings.engine,
            threads=settings.threads,
            graphs_dir=graphs,
            weights_dir=Path(scratch) / "weights",
            prompt="",
        )
        try:
            yield Asked(named, lanes, graphs)
        finally:
            lanes.close()
