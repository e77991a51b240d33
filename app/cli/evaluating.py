"""`adiabat evaluate`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from app.cli.benchmarking import benchmark
from app.cli.common import ApiKey, AsJson, Url, connect, console, fail, print_json, progress_bar, say
from app.cli.searching import snippet
from app.client import DEFAULT_URL, AdiabatClient
from app.errors import BadInput
from app.pictures import Shade, check_kind, heat_map
from app.wire.evaluations import (
    Cell,
    Difference,
    EvaluationPublic,
    EvaluationResult,
    Figures,
    Moved,
    ReplayResult,
)

ALPHA = 0.05
MAX_CHANGES = 5
MARK = "*"
GAP_CHARS = 2
CELL_CHARS = 18 + GAP_CHARS  # an interval is the widest line of a cell
KEY = f"{MARK} differs from the base, p < {ALPHA} (Holm over the datasets; a language's own p)"

Column = tuple[str, str]  # dataset, and language or ""


def install(cli: typer.Typer) -> None:
    cli.command()(evaluate)


def evaluate(
    dataset: Annotated[
        list[str] | None, typer.Option(help="DATASET[:SPLIT], the split is 'test' (repeatable).")
    ] = None,
    encoder: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME[@VERSION] or 'active' (repeatable; the base is always measured).", show_default="active"
        ),
    ] = None,
    replay: Annotated[
        int | None, typer.Option(min=1, help="Ask so many of the newest logged searches again, to see what changes.")
    ] = None,
    since: Annotated[
        float | None, typer.Option(help="With --replay: from this time on, in seconds since 1970.")
    ] = None,
    evaluation_id: Annotated[
        str | None, typer.Option("--id", help="Show this earlier evaluation; an interrupted one is taken up again.")
    ] = None,
    mteb: Annotated[
        list[str] | None,
        typer.Option(
            help="A task of MTEB, or MODULE:CLASS of your own (repeatable); measured here, not in the service."
        ),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Draw the differences as a heat map: FILE.png or FILE.svg.")
    ] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Measure encoders on datasets, each against the base: MRR@10, its difference and 95% interval.

    Example: adiabat evaluate --encoder bees --dataset beekeeping:test --dataset beekeeping:de --picture bees.png

    Example: adiabat evaluate --encoder bees --replay 1000

    Example: adiabat evaluate --encoder bees --mteb NFCorpus --mteb SciFact
    """
    if mteb:
        if dataset or replay or since is not None or evaluation_id or picture:
            raise BadInput("--mteb goes with --encoder and --json alone: what it measures is not kept in the service.")
        with connect(url, api_key) as client:
            benchmark(client, mteb, encoder or ["active"], as_json)
        return
    if bool(dataset or replay) == bool(evaluation_id):
        raise BadInput(
            "Name what to measure on with --dataset, --replay or --mteb, or an earlier evaluation with --id."
        )
    if evaluation_id and encoder:
        raise BadInput("--encoder goes with --dataset: an earlier evaluation keeps the encoders it was made with.")
    if since is not None and not replay:
        raise BadInput("--since goes with --replay: from when on logged searches are asked again.")
    if picture is not None:
        check_kind(picture)
    with connect(url, api_key) as client:
        if evaluation_id:
            evaluation = client.evaluation(evaluation_id)
            if evaluation.status == "interrupted":
                evaluation = client.resume_evaluation(evaluation_id)
        else:
            asked = {"limit": replay} | ({} if since is None else {"since": since})
            evaluation = client.create_evaluation(dataset or [], encoder, replay=asked if replay else None)
        evaluation = _wait(client, evaluation)
    if picture is not None and evaluation.result:
        draw(evaluation.result, picture)
    if as_json:
        print_json(evaluation)
    else:
        _print(evaluation)
    if evaluation.status != "succeeded":
        raise typer.Exit(1)


def _wait(client: AdiabatClient, evaluation: EvaluationPublic) -> EvaluationPublic:
    with progress_bar("evaluating") as bar:

        def show(seen: EvaluationPublic) -> None:
            said = seen.progress
            bar.update(said.get("step"), str(said.get("phase", seen.status)), said.get("steps"))

        try:
            return client.wait_for_evaluation(evaluation.id, show)
        except KeyboardInterrupt:
            fail(f"no longer watching; the evaluation goes on. 'adiabat evaluate --id {evaluation.id}' takes it up.")
            raise


def _print(evaluation: EvaluationPublic) -> None:
    say(f"evaluation {evaluation.id}: {evaluation.status}")
    if evaluation.reason:
        say(f"  {evaluation.reason}")
    if not (result := evaluation.result):
        return
    if result.replay:
        _print_replay(result.replay)
    if not result.datasets:
        return
    for columns in beside_each_other(_columns(result), console.width - max(map(len, result.matrix))):
        console.print(_table(result, columns))
    say(f"MRR@10, change and its 95% interval. {KEY}; --json has nDCG@10, recall, triplets and drift too")
    for name, found in result.datasets.items():
        if found.missing.judgments:
            some = ", ".join(found.missing.ids[:5])
            left = f"; {found.missing.queries} queries had no other and are left out" if found.missing.queries else ""
            say(f"{name}: {found.missing.judgments} judgments name passages that are not there ({some} …){left}")


def _print_replay(replay: ReplayResult) -> None:
    say(f"{replay.searches} logged searches asked again, against {replay.against}")
    if replay.left_out:
        say(f"{replay.left_out} more were left out: by words (lexical, hybrid), or with filters that cannot be served")
    table = Table(box=None, pad_edge=False, padding=(0, GAP_CHARS, 0, 0))
    for heading in ("encoder", "language"):
        table.add_column(heading)
    for heading in ("searches", "overlap@10", "RBO", "first changed", "churn", "MRR@10"):
        table.add_column(heading, justify="right")
    for key, found in replay.encoders.items():
        table.add_row(key, "", *_moved(found), " ".join(_lines(found.judged)) if found.judged else "")
        for language, moved in found.languages.items():
            table.add_row("", language, *_moved(moved), "")
    console.print(table)
    for key, found in replay.encoders.items():
        for change in (found.changes or [])[:MAX_CHANGES]:
            first = f"{change.before[:1]} became {change.after[:1]}"
            say(f"{key}: RBO {change.rbo:.2f} for {snippet(change.query)}: {first}")


def _moved(moved: Moved) -> list[str]:
    return [
        str(moved.searches),
        f"{moved.overlap:.3f}",
        f"{moved.rbo:.3f}",
        f"{moved.first_changed:.1%}",
        f"{moved.churn:.2f}",
    ]


def _columns(result: EvaluationResult) -> list[Column]:
    """Every dataset, and behind one with more than one language these."""
    found: list[Column] = []
    for name, cell in next(iter(result.matrix.values())).items():
        found.append((name, ""))
        found += [(name, language) for language in cell.languages if len(cell.languages) > 1]
    return found


def beside_each_other(columns: Sequence[Column], room: int) -> Iterator[list[Column]]:
    """As many columns at a time as `room` characters hold, one at least."""
    held: list[Column] = []
    used = 0
    for column in columns:
        width = max(CELL_CHARS, len(column[0]) + GAP_CHARS)
        if held and used + width > room:
            yield held
            held, used = [], 0
        held.append(column)
        used += width
    yield held


def _figures(row: dict[str, Cell], column: Column) -> Figures:
    name, language = column
    return row[name].languages[language] if language else row[name]


def _heading(column: Column) -> str:
    return "\n".join(filter(None, column))


def _mark(difference: Difference) -> str:
    p = difference.p if difference.p_holm is None else difference.p_holm
    return MARK if p < ALPHA else ""


def _table(result: EvaluationResult, columns: Sequence[Column]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, GAP_CHARS, 1, 0))
    table.add_column("encoder")
    for column in columns:
        table.add_column(_heading(column), justify="right", no_wrap=True)
    base = next(iter(result.matrix.values()))
    table.add_row("", *(f"{_figures(base, column).queries} queries" for column in columns))
    for key, row in result.matrix.items():
        table.add_row(key, *("\n".join(_lines(_figures(row, column))) for column in columns))
    return table


def _lines(figures: Figures) -> Iterator[str]:
    """Flushed right; the place of the mark is kept where there is none, so that figures stand below each other."""
    yield f"{figures.mrr:.4f} "
    if difference := figures.difference:
        yield f"{difference.change:+.4f}{_mark(difference) or ' '}"
        yield f"{difference.low:+.4f} to {difference.high:+.4f}"


def draw(result: EvaluationResult, path: Path) -> None:
    """The differences as a heat map: encoders down, datasets and languages across."""
    columns = _columns(result)
    heat_map(
        path,
        list(result.matrix),
        [_heading(column) for column in columns],
        [[_shade(_figures(row, column)) for column in columns] for row in result.matrix.values()],
        title="MRR@10: change against the base",
        key=f"Bold: change, below it MRR@10. Blue is better than the base, orange is worse.\n{KEY}.",
    )


def _shade(figures: Figures) -> Shade:
    if not (difference := figures.difference):
        return Shade(figure=f"{figures.mrr:.3f}")
    said = f"{difference.change:+.3f}{_mark(difference)}"
    return Shade(figure=said, note=f"{figures.mrr:.3f}", value=difference.change)
