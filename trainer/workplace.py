"""What a job finds at its trainer, whatever it is for: registry, artifacts, its own folders, and how to open them."""

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sentence_transformers import SentenceTransformer

from app.encoders.admission import Registrar
from app.encoders.artifacts import CHECKPOINTS, JOBS, ArtifactStore
from app.encoders.files import write_full
from app.encoders.spec import read_spec
from app.errors import AdiabatError, BadDataset
from app.registry import AnyJob, EncoderRecord, EventKind, Registry
from trainer.heartbeat import Heartbeat
from trainer.matrix import corpus_matrix
from trainer.ranks import ALONE, Ranks
from trainer.training_set import Matrix

log = logging.getLogger("adiabat.trainer")

CHECKPOINT_GLOBS = ("*.json", "*/step-*.safetensors")  # scratch lies beside them


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoder:
    record: EncoderRecord
    folder: Path
    model: SentenceTransformer
    query_prompt: str
    passage_prompt: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Workplace:
    """`training_set`, `replay` and `checkpoints` are this job's own."""

    registry: Registry
    artifacts: ArtifactStore
    registrar: Registrar
    heartbeat: Heartbeat
    training_set: Path
    replay: Path
    checkpoints: Path
    ranks: Ranks = ALONE

    def load(self, record: EncoderRecord, folder: Path) -> Encoder:
        """The encoder, written whole into `folder`, which need not exist, and opened there."""
        files = self.artifacts.files(record.key)
        write_full(files, folder)
        spec = read_spec(files)
        return Encoder(
            record=record,
            folder=folder,
            model=SentenceTransformer(str(folder), local_files_only=True),
            query_prompt=spec.query_prompt,
            passage_prompt=spec.passage_prompt,
        )

    def dataset(self, digests: Mapping[str, str], name: str) -> Path:
        """The folder with the content that the job fixed when it was made. Raises `BadDataset` where it is gone."""
        folder = self.artifacts.dataset(digests[name])
        if not folder.is_dir():
            raise BadDataset(
                f"The content of the dataset {name!r} that this job was started with is gone; upload it again."
            )
        return folder

    def share_checkpoints(self, job: AnyJob) -> None:
        """For a trainer on another host that may have to go on."""
        self.artifacts.share(f"{JOBS}/{job.id}/{CHECKPOINTS}", self.checkpoints, CHECKPOINT_GLOBS)

    def own_matrix(self, name: str, dataset: Path, base: Encoder) -> Matrix | None:
        """The dataset's own corpus, embedded by the base now or before; None where it is over the stored passages."""
        if not (dataset / "corpus.jsonl").exists():
            return None
        self.heartbeat.say(phase=f"embedding the corpus of {name}")
        return corpus_matrix(
            base.model,
            dataset / "corpus.jsonl",
            self.artifacts.root / "matrices",
            encoder_digest=base.record.digest,
            passage_prompt=base.passage_prompt,
            should_stop=self.heartbeat.should_stop,
        )

    def say(self, job: AnyJob, sentence: str) -> None:
        """A sentence for whoever follows the job. One that cannot be written is no reason to end the job."""
        log.info("job %s: %s", job.id, sentence)
        with suppress(AdiabatError):
            self.registry.events.tell(job.id, EventKind.LOG, held_by=job.worker, message=sentence)
