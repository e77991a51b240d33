"""Registration: the one road by which an encoder enters, from a folder, a tuning job or at first start.

The child `app.encoders.admit` reads and stages; here it is decided whether the encoder belongs to the
collection's index space, and the staged artifact and its row become visible together.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

import app.errors
from app.encoders.admit import AdmitRequest
from app.encoders.artifacts import BASE_KEY, PROBES, ArtifactStore, Manifest
from app.encoders.child import Limits, run_child
from app.encoders.probes import cosines
from app.errors import AdiabatError, EncoderBroken, EncoderRefused, Unavailable
from app.registry import Admission, EncoderRecord, EncoderState, NewEncoder, Registry
from app.registry.encoders import AlsoOfEncoder

# (probe vectors of the candidate, of the base) -> mean share of common top-10 passages, None for an empty store
Overlap = Callable[[NDArray[np.float32], NDArray[np.float32]], float | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """What somebody wants to register. `source` is a sentence-transformers folder or an artifact of ours."""

    name: str
    source: Path
    source_base: Path | None = None
    said_source: str = ""
    description: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    force: bool = False
    state: EncoderState | None = None  # a gate's verdict; None where no gate was asked
    metrics: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class AdmissionRules:
    min_cosine: float
    min_overlap: float
    engine: str
    threads: int
    limits: Limits = field(default_factory=Limits)  # of the child that examines


class Registrar:
    """Registers encoders in `artifacts` and `registry`.

    `overlap` measures top-10 agreement on stored passages; the trainer, which has no store, passes None.
    """

    def __init__(
        self, artifacts: ArtifactStore, registry: Registry, rules: AdmissionRules, overlap: Overlap | None
    ) -> None:
        self._artifacts = artifacts
        self._registry = registry
        self._rules = rules
        self._overlap = overlap

    def register_base(
        self, source: Path, said_source: str, query_prompt: str | None, passage_prompt: str | None
    ) -> EncoderRecord:
        """Copy the passage encoder into the artifact store as `base@1`."""
        with self._artifacts.staging() as staging:
            manifest = self._examine(source, None, staging, None, query_prompt, passage_prompt)
            manifest = replace(manifest, base_digest=manifest.digest, parent_digest=None)
            candidate = Candidate(
                name="base", source=source, said_source=said_source, description="The passage encoder."
            )
            return self._publish(candidate, staging, manifest, Admission.VERIFIED, [])[0]

    def register(
        self,
        candidate: Candidate,
        also: AlsoOfEncoder | None = None,
        first: Callable[[Connection], None] | None = None,
    ) -> tuple[EncoderRecord, bool]:
        """Examine, decide, publish. Returns the record and whether it is new; `also` is done with the record's row,
        `first` before it: what it raises comes through, and nothing is published.

        Raises `EncoderRefused` (not of this index space), `EncoderBroken` (files that do not load),
        `SourceRefused` (unsafe files), `Unavailable` (the disk refuses); nothing is left behind then.
        """
        try:
            with self._artifacts.staging() as staging:
                base = self._artifacts.folder(BASE_KEY)
                manifest = self._examine(candidate.source, candidate.source_base, staging, base)
                admission, checks = self._decide(candidate, manifest, np.load(staging / PROBES))
                return self._publish(candidate, staging, manifest, admission, checks, also, first)
        except OSError as error:
            raise Unavailable(
                f"The artifact of {candidate.name} could not be written ({error}); nothing was registered. "
                "Free some space and repeat the call."
            ) from error

    def _decide(
        self, candidate: Candidate, manifest: Manifest, vectors: NDArray[np.float32]
    ) -> tuple[Admission, list[dict[str, Any]]]:
        base = self._artifacts.manifest(BASE_KEY)
        checks: list[dict[str, Any]] = [
            {"check": "dimension", "value": manifest.dimension, "expected": base.dimension, "passed": True},
            {"check": "finite", "value": True, "expected": True, "passed": True},
        ]
        if manifest.base_digest == base.digest or manifest.digest == base.digest:
            checks.append({"check": "lineage", "value": base.digest, "expected": base.digest, "passed": True})
            return Admission.VERIFIED, checks
        probes = self._probe_checks(vectors)
        checks += [
            {"check": "lineage", "value": manifest.base_digest, "expected": base.digest, "passed": False},
            *probes,
        ]
        failed = [check for check in probes if not check["passed"]]
        if not failed:
            return Admission.PROBED, checks
        if candidate.force:
            return Admission.FORCED, checks
        differs = "; ".join(f"{c['check']} is {c['value']:.3f}, at least {c['expected']:.3f} expected" for c in failed)
        raise EncoderRefused(
            f"{candidate.name}: this encoder does not speak the collection's index space: {differs}. "
            "Register an encoder tuned from the base, or send force=true if you know better.",
            checks=checks,
        )

    def _probe_checks(self, vectors: NDArray[np.float32]) -> list[dict[str, Any]]:
        base_vectors = self._artifacts.probe_vectors(BASE_KEY)
        cosine = float(cosines(vectors, base_vectors).mean())
        rules = self._rules
        checks = [_at_least("probe cosine to base", cosine, rules.min_cosine)]
        overlap = self._overlap(vectors, base_vectors) if self._overlap else None
        if overlap is not None:
            checks.append(_at_least("top-10 overlap with base", overlap, rules.min_overlap))
        return checks

    def _examine(
        self,
        source: Path,
        source_base: Path | None,
        staging: Path,
        base: Path | None,
        query_prompt: str | None = None,
        passage_prompt: str | None = None,
    ) -> Manifest:
        request = AdmitRequest(
            source=str(source),
            source_base=str(source_base) if source_base else None,
            base=str(base) if base else None,
            staging=str(staging),
            graphs=str(self._artifacts.graphs),
            weights=str(self._artifacts.weights),
            engine=self._rules.engine,
            threads=self._rules.threads,
            query_prompt=query_prompt,
            passage_prompt=passage_prompt,
        )
        return Manifest(**run_admit(request, self._rules.limits)["manifest"])

    def _verdict_on(self, digest: str) -> EncoderState:
        """A gate's no stays with the weights, whatever name they are registered under."""
        known = [record.state for record in self._registry.encoders.all() if record.digest == digest]
        rejected = EncoderState.REJECTED in known and EncoderState.READY not in known
        return EncoderState.REJECTED if rejected else EncoderState.READY

    def _publish(
        self,
        candidate: Candidate,
        staging: Path,
        manifest: Manifest,
        admission: Admission,
        checks: list[dict[str, Any]],
        also: AlsoOfEncoder | None = None,
        first: Callable[[Connection], None] | None = None,
    ) -> tuple[EncoderRecord, bool]:
        metrics = candidate.metrics or manifest.metrics
        state = candidate.state or self._verdict_on(manifest.digest)
        new = NewEncoder(
            name=candidate.name,
            digest=manifest.digest,
            base_digest=manifest.base_digest,
            parent_digest=manifest.parent_digest,
            admission=admission,
            state=state,
            size_bytes=sum(path.stat().st_size for path in staging.rglob("*") if path.is_file()),
            description=candidate.description,
            labels=candidate.labels,
            metrics=metrics,
            checks=checks,
        )

        def complete(key: str, place: Callable[[str], None]) -> None:
            version = int(key.rpartition("@")[2])
            whole = replace(
                manifest,
                name=candidate.name,
                version=version,
                source=candidate.said_source,
                metrics=metrics,
                created_at=time.time(),
            )
            whole.write(staging)
            place(key)

        with self._artifacts.placing(staging) as place:
            return self._registry.encoders.add(new, lambda key: complete(key, place), also, first)


def run_admit(request: AdmitRequest, limits: Limits) -> dict[str, Any]:
    """Run the child; turn its refusal back into the error it raised, and its death into `EncoderBroken`.

    Raises `TooLarge` where it wants more memory than it may have.
    """
    child = run_child("app.encoders.admit", json.dumps(asdict(request)), limits, doing="Examining the encoder")
    try:
        answer = json.loads(child.out.splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise EncoderBroken(f"The encoder could not be examined: {child.last_word}") from error
    if "refused" in answer:
        kind = getattr(app.errors, answer["refused"]["class"])
        refusal: AdiabatError = kind.__new__(kind)
        AdiabatError.__init__(refusal, answer["refused"]["detail"])
        raise refusal
    return dict(answer["ok"])


def _at_least(check: str, value: float, expected: float) -> dict[str, Any]:
    return {"check": check, "value": value, "expected": expected, "passed": value >= expected}
