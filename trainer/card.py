"""The model card of a tuned encoder: what it gained and kept, how it was found, how to load it. Markdown and pictures.

Every figure of quality is of the prove halves but where the card says otherwise.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app import __version__
from app.pictures import LINES, QUIET, picture
from app.registry import EncoderRecord, JobRecord
from trainer.card_head import card_head
from trainer.search import Trial

README = "README.md"
PICTURES = "card"
_METRICS = {
    "mrr": "MRR@10",
    "ndcg": "nDCG@10",
    "recall_10": "recall@10",
    "recall_100": "recall@100",
    "triplets": "triplets",
}


def write_card(
    folder: Path,
    job: JobRecord,
    result: Mapping[str, Any],
    *,
    base: EncoderRecord,
    parent: EncoderRecord,
    trials: Sequence[Trial],
    losses: Sequence[float],
    passage_encoder: str = "",
) -> None:
    """Write `README.md` and its pictures, in `card/`, into the encoder's `folder`. `result` is the job's;
    `passage_encoder` what the base was made from."""
    (folder / PICTURES).mkdir(exist_ok=True)
    parts = [
        card_head(job.name, job.dataset, result, passage_encoder=passage_encoder),
        _about(job, parent, base),
        _quality(folder, result, parent=None if parent.id == base.id else parent),
        _gate(result),
        _finding(folder, result, trials),
        _tuning(folder, job, result, losses),
        _data(job, result),
        _use(job),
    ]
    (folder / README).write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _about(job: JobRecord, parent: EncoderRecord, base: EncoderRecord) -> str:
    return (
        f"# {job.name}\n\n"
        f"A **query encoder**, tuned from `{parent.key}` on the queries of `{job.dataset}` by Adiabat {__version__}. "
        f"It searches vectors that `{base.key}` (`{base.digest}`) made of passages; those stay as they are, and no "
        "passage is to be embedded with this encoder."
    )


def _quality(folder: Path, result: Mapping[str, Any], parent: EncoderRecord | None) -> str:
    """`parent`: None where it is the base."""
    sets = {"dev": result["dev"] | {"change": result["dev"]["gain"]}} | result["guards"]
    parents = {"dev": result["parent"]["dev"]} | result["parent"]["guards"]
    rows = [
        (
            name,
            f"{each['queries']}",
            f"{each['before']:.4f}",
            *([f"{parents[name]:.4f}"] if parent else []),
            f"{each['after']:.4f}",
            f"{each['change']:+.4f}",
            f"{each['low']:+.4f} to {each['high']:+.4f}",
            _p(each.get("p_holm", each["p"])),
            {None: "", True: "yes", False: "not shown"}[each.get("held")],
            f"{each['drift']:.1e}",
        )
        for name, each in sets.items()
    ]
    heading = ("MRR@10", "questions", "before", *(["parent"] if parent else []), "after", "change", "95% interval")
    _draw_changes(folder / PICTURES / "changes.png", sets)
    said = [
        "## What it gained and what it kept",
        "Against the passage encoder as query encoder, on questions that nothing was chosen by (the *prove* halves). "
        "Guards are what the tuning did not aim at; p of a guard is adjusted for their number (Holm); drift is the "
        "mean of 1 - cos between a question's vector before and after.",
        *([f"The column *parent* is `{parent.key}`, from which it was tuned."] if parent else []),
        _table((*heading, "p", "held", "drift"), rows),
        f"![Change of MRR@10 by set, with 95% intervals]({PICTURES}/changes.png)",
    ]
    if result["guards_relative"] is not None:
        said.append(f"Mean relative change of the guards: **{result['guards_relative']:+.2%}**.")
    return "\n\n".join([*said, "Other measures, before and after:", _measures(sets)])


def _measures(sets: Mapping[str, Any]) -> str:
    rows = []
    for name, each in sets.items():
        rows.append((name, *_before_after(each["metrics"])))
        rows += [(f"{name}, {lang}", *_before_after(figures)) for lang, figures in each["languages"].items()]
    return _table(("", *_METRICS.values()), rows)


def _before_after(metrics: Mapping[str, Any]) -> Iterator[str]:
    for name in _METRICS:
        yield f"{metrics[name]['before']:.3f} → {metrics[name]['after']:.3f}"


def _gate(result: Mapping[str, Any]) -> str:
    passed = "passed" if result["gate"]["passed"] else "**did not pass**: it is not to be activated"
    return "\n".join([f"## Gate: {passed}\n", *(f"- {reason}" for reason in result["gate"]["reasons"])])


def _finding(folder: Path, result: Mapping[str, Any], trials: Sequence[Trial]) -> str:
    chosen = result["chosen"]
    said = [
        "## How it was found",
        f"Rate {chosen['learning_rate']:g}, {chosen['epochs']} epochs, {_infonce(chosen)}and of the step that the "
        f"tuning made a share of {chosen['soften']:g} kept (theta = parent + a (tuned - parent)). What was left to be "
        "found was found on the *choose* halves, whose changes of MRR@10 these are:",
        _table(
            (
                "looked for",
                "rate",
                "epochs",
                "reach",
                "T",
                "runs",
                "pairs",
                "a",
                "dev",
                "guards, mean",
                "guards, worst",
                "most drift",
            ),
            [row for trial in trials for row in _rows(trial)],
        ),
    ]
    if any(trial.stage == "rate" for trial in trials):
        _draw_rates(folder / PICTURES / "rates.png", trials)
        said.append(f"![Change of MRR@10 by learning rate]({PICTURES}/rates.png)")
    if any(len(trial.points) > 1 for trial in trials if trial.stage != "rate"):
        _draw_softening(folder / PICTURES / "softening.png", trials[-1], chosen["soften"])
        said.append(f"![Change of MRR@10 by the share of the step that is kept]({PICTURES}/softening.png)")
    return "\n\n".join(said)


def _infonce(chosen: Mapping[str, Any]) -> str:
    """Empty for another loss."""
    return f"reach {chosen['reach']}, temperature {chosen['temperature']:g}, " if "reach" in chosen else ""


def _rows(trial: Trial) -> Iterator[tuple[str, ...]]:
    course = (f"{value:g}" for value in asdict(trial.course).values())
    start = (trial.stage, *course, f"{trial.runs}", f"{trial.pairs}")
    if trial.ended:
        yield (*start, "", trial.ended, "", "", "")
    for point in trial.points:
        guards: tuple[str, ...] = ("", "", "")
        if point.guards:
            guards = (f"{point.guards_mean:+.4f}", f"{point.worst:+.4f}", f"{max(point.drifts.values()):.1e}")
        yield (*start, f"{point.soften:g}", f"{point.dev:+.4f}", *guards)


def _tuning(folder: Path, job: JobRecord, result: Mapping[str, Any], losses: Sequence[float]) -> str:
    weights = result["weights"]
    share = weights["moved"] / weights["weights"]
    with picture(folder / PICTURES / "loss.png", 6, 2.4) as figure:
        axes = figure.add_subplot()
        axes.plot(range(1, len(losses) + 1), losses, color=LINES[0], linewidth=0.9)
        axes.set(title="Loss", xlabel="step")
    return "\n\n".join(
        [
            "## The tuning",
            f"{result['pairs']} pairs, {len(losses)} steps, {result['tuning_s']:.0f} s. Before softening "
            f"{weights['moved']:,} of {weights['weights']:,} weights ({share:.1%}) had moved, by "
            f"{weights['mean_change']:.1e} on average and {weights['max_change']:.1e} at most. All in fp32.",
            f"![Loss by step]({PICTURES}/loss.png)",
            f"```json\n{json.dumps(job.recipe | result['chosen'], indent=2)}\n```",
        ]
    )


def _data(job: JobRecord, result: Mapping[str, Any]) -> str:
    rows = [(name, f"`{digest}`") for name, digest in sorted(job.dataset_digests.items())]
    said = ["## The data", _table(("dataset", "digest of its content"), rows)]
    if result["missing"]:
        missing = ", ".join(f"{count} in {name}" for name, count in result["missing"].items())
        said.append(f"Judgments that name a passage which was not there were left out: {missing}.")
    return "\n\n".join(said)


def _use(job: JobRecord) -> str:
    return (
        "## Use\n\n```python\nfrom sentence_transformers import SentenceTransformer\n\n"
        f'encoder = SentenceTransformer("path/to/{job.name}")\n'
        'vectors = encoder.encode_query(["a question"], normalize_embeddings=True)\n```\n\n'
        "Search with them among the vectors that the passage encoder named above made; `adiabat.json` has the lineage."
    )


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(map(_plain, line))} |" for line in lines)


def _plain(cell: str) -> str:
    """What users wrote, such as the name of a language, must not break the table or bring in markup."""
    return " ".join(cell.split()).replace("|", "\\|").replace("<", "&lt;")


def _p(p: float) -> str:
    return f"{p:.4f}" if p >= 0.0001 else "below 0.0001"


def _draw_changes(path: Path, sets: Mapping[str, Any]) -> None:
    with picture(path, 6, 1.0 + 0.32 * len(sets)) as figure:
        axes = figure.add_subplot()
        axes.axvline(0, color=QUIET, linewidth=0.8)
        for place, each in enumerate(sets.values()):
            colour = LINES[0] if each["change"] >= 0 else LINES[1]
            axes.plot([each["low"], each["high"]], [place, place], color=colour, linewidth=2.2, solid_capstyle="round")
            axes.plot([each["change"]], [place], "o", color=colour, markersize=6)
        axes.set_yticks(range(len(sets)), list(sets))
        axes.invert_yaxis()
        axes.grid(visible=False)
        axes.set(title="Change of MRR@10, with 95% intervals")


def _draw_rates(path: Path, trials: Sequence[Trial]) -> None:
    """For each rate its best point: what the domain gains, and what the guards do."""
    rates = [trial for trial in trials if trial.stage == "rate" and trial.points]
    with picture(path, 6, 3) as figure:
        axes = figure.add_subplot()
        axes.axhline(0, color=QUIET, linewidth=0.8)
        for a in sorted({point.soften for trial in rates for point in trial.points}):
            points = [(t.learning_rate, p) for t in rates for p in t.points if p.soften == a]
            width = 0.8 + 1.4 * a
            at = [rate for rate, _ in points]
            axes.plot(at, [p.dev for _, p in points], "o-", color=LINES[0], linewidth=width, label=f"dev, a = {a:g}")
            if points[0][1].guards:
                means = [p.guards_mean for _, p in points]
                axes.plot(at, means, "o--", color=LINES[1], linewidth=width, label=f"guards, a = {a:g}")
        axes.set_xscale("log")
        axes.set(title="Short tunings: change of MRR@10 by learning rate", xlabel="learning rate")
        axes.legend(fontsize=7.5, ncols=2)


def _draw_softening(path: Path, trial: Trial, soften: float) -> None:
    """The trade-off curve of the tuning that was kept."""
    at = [point.soften for point in trial.points]
    with picture(path, 6, 3) as figure:
        axes = figure.add_subplot()
        axes.axhline(0, color=QUIET, linewidth=0.8)
        axes.axvline(soften, color=QUIET, linewidth=0.8, linestyle=":")
        axes.plot(at, [point.dev for point in trial.points], "o-", color=LINES[0], label="dev")
        if trial.points[0].guards:
            axes.plot(at, [point.guards_mean for point in trial.points], "o-", color=LINES[2], label="guards, mean")
            axes.plot(at, [point.worst for point in trial.points], "o-", color=LINES[1], label="guards, worst")
        axes.set(title="Change of MRR@10 by the share of the step that is kept", xlabel="a")
        axes.legend(fontsize=8)
