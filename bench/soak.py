"""A service under steady load for a long time, with all that goes on beside it:

    python bench/soak.py [--minutes 30] [--data FOLDER] [--work WORK] [--json FILE] [--picture FILE.png]

The active encoder is switched every 5 seconds, passages are replaced all the time, and searches come at 80% of what a
burst shows the service can take beside that (open loop, `load.py`; the query cache is off). Through the middle half of
the run a tuning job is at work. Without FOLDER (with the BEIR folder medquad in it) all of it is on `samples/`.

Asked, and told as met or not: no failed request, switch or write; latency and memory that do not grow; and a p99 while
the job is at work of at most 1.5 times the p99 without it. Growth is the slope of a robust line (Theil and Sen) over
windows of ten seconds, from a tenth of the run to its end, as a share of the median. Exits with 1 where one is not met.
"""

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from residency import register, rss_mb, service
from road import read_judged
from scipy.stats import theilslopes

from app.beir import read_jsonl
from app.cli.datasets import zip_folder
from app.client import AdiabatClient, ApiError, Unreachable
from app.pictures import LINES, QUIET, picture

SHARE = 0.8  # of capacity
CLIENTS = 16  # of the burst that measures it
BURST_S, WARM_S = 30, 3
SWITCH_S = 5
WRITES_PER_S, WRITTEN = 4, 256  # passages a second, and how many there are of them
WINDOW_S = 10
TUNING = (0.25, 0.75)  # of the run
SETTLED = 0.1  # of the run: from here on nothing should grow
ROOM = 2**30
DATASET = "soak"
P99_TIMES, GROWTH, P99_GROWTH, RSS_GROWTH = 1.5, 0.2, 0.5, 0.1
ROOT = Path(__file__).resolve().parents[1]
Report = dict[str, Any]
Floats = NDArray[np.float64]
Beside = Callable[[AdiabatClient], None]  # with a client of its own, until all is done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path, help="keeps the data folder for the next run")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    source = given.data / "medquad" if given.data else ROOT / "samples"
    with TemporaryDirectory() as scratch:
        work = given.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        questions = Path(scratch) / "questions.txt"
        questions.write_text("".join(" ".join(query.split()) + "\n" for query, _ in read_judged(source, "dev")))
        with service(work, ROOM, trainer=True) as (pid, client):
            fill(client, source, work)
            texts = [row["text"] for _, row in read_jsonl(source / "corpus.jsonl")]
            capacity = measure_capacity(client.url, questions, texts)
            print(f"capacity {capacity:.0f} searches/s; {given.minutes:g} minutes at {SHARE:.0%} of it", flush=True)
            run = soak(pid, client.url, questions, texts, capacity * SHARE, given.minutes * 60)
    report = {"minutes": given.minutes, "capacity_per_s": round(capacity, 1), **told(run)}
    print(json.dumps({key: value for key, value in report.items() if key not in ("windows", "memory")}, indent=1))
    if given.json:
        given.json.write_text(json.dumps(report) + "\n")
    if given.picture:
        draw(given.picture, report)
    if not table(report):
        sys.exit(1)


def fill(client: AdiabatClient, source: Path, work: Path) -> None:
    if client.count_passages() == 0:
        command = [sys.executable, "-m", "app.cli", "ingest", str(source / "corpus.jsonl"), "--url", client.url]
        subprocess.run(command, check=True)
    client.put_dataset(DATASET, zip_folder(source, work / "dataset.zip", corpus=False))
    register(client, work / "sources", count=2)
    while client.ready().indexing:
        time.sleep(0.5)


def measure_capacity(url: str, questions: Path, texts: Sequence[str]) -> float:
    """Answers a second to as many clients as the burst has, beside switches and writes. Raises `RuntimeError` where one
    of these failed."""
    run, done = Run(began=time.monotonic(), seconds=BURST_S), threading.Event()
    with TemporaryDirectory() as scratch, going_on(run, url, always(run, texts, done), done):
        out = Path(scratch) / "burst.npy"
        for seconds in (WARM_S, BURST_S):
            command = load_command(url, questions, seconds, out, "--clients", str(CLIENTS))
            subprocess.run(command, check=True)
        answered = np.load(out)[:, 2].sum()
    if run.failures:
        raise RuntimeError(run.failures[0])
    return float(answered / BURST_S)


def load_command(url: str, questions: Path, seconds: float, out: Path, *how: str) -> list[str]:
    return [sys.executable, str(Path(__file__).with_name("load.py")), url, str(questions), str(seconds), str(out), *how]


@dataclass(kw_only=True, eq=False)
class Run:
    """What happened; all times by the system's monotonic clock."""

    began: float
    seconds: float
    requests: Floats = field(default_factory=lambda: np.zeros((0, 3)))  # due, latency in s, 1 if answered
    switches: list[float] = field(default_factory=list)
    written: int = 0
    memory: list[tuple[float, float, float]] = field(default_factory=list)  # time, resident MB, anonymous MB
    tuning: list[tuple[float, float]] = field(default_factory=list)
    steps: int = 0  # of the tuning
    failures: list[str] = field(default_factory=list)


def soak(pid: int, url: str, questions: Path, texts: Sequence[str], rate: float, seconds: float) -> Run:
    run, done = Run(began=time.monotonic(), seconds=seconds), threading.Event()
    beside = [
        *always(run, texts, done),
        lambda _: watch_memory(run, pid, done),
        lambda own: tune(run, own, done),
    ]
    with TemporaryDirectory() as scratch, going_on(run, url, beside, done):
        out = Path(scratch) / "requests.npy"
        subprocess.run(load_command(url, questions, seconds, out, "--rate", str(rate)), check=True)
        run.requests = np.load(out)
    return run


def always(run: Run, texts: Sequence[str], done: threading.Event) -> list[Beside]:
    return [lambda own: switch(run, own, done), lambda own: write(run, own, texts, done)]


@contextmanager
def going_on(run: Run, url: str, beside: Sequence[Beside], done: threading.Event) -> Any:
    def one(work: Beside) -> None:
        with AdiabatClient(url, retries=0, timeout_s=60) as own:
            try:
                work(own)
            except Exception as error:  # one that ends early would make the rest look good
                run.failures.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=one, args=(work,)) for work in beside]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()


@contextmanager
def counted(run: Run, what: str) -> Any:
    try:
        yield
    except (ApiError, Unreachable) as error:
        run.failures.append(f"{what}: {error}")


def switch(run: Run, client: AdiabatClient, done: threading.Event) -> None:
    number = 0
    while not done.wait(SWITCH_S):
        with counted(run, "switch"):
            client.activate(("v0@1", "v1@1")[number % 2], force=True)
            run.switches.append(time.monotonic())
        number += 1


def write(run: Run, client: AdiabatClient, texts: Sequence[str], done: threading.Event) -> None:
    """The same ids again and again with other texts: all is embedded, and the store stays as large as it is."""
    while not done.wait(1):
        numbers = range(run.written, run.written + WRITES_PER_S)
        with counted(run, "write"):
            client.upsert_passages(
                {"id": f"soak-{n % WRITTEN}", "text": f"{texts[n % len(texts)]} ({n})"} for n in numbers
            )
        run.written += WRITES_PER_S


def watch_memory(run: Run, pid: int, done: threading.Event) -> None:
    while not done.wait(1):
        said = Path(f"/proc/{pid}/status").read_text()
        anonymous = int(next(line for line in said.splitlines() if line.startswith("RssAnon")).split()[1]) * 1024 / 1e6
        run.memory.append((time.monotonic(), rss_mb(pid), anonymous))


def tune(run: Run, client: AdiabatClient, done: threading.Event) -> None:
    """One job after another, through the middle of the run."""
    if done.wait(TUNING[0] * run.seconds):
        return
    until = run.began + TUNING[1] * run.seconds
    while time.monotonic() < until and not done.is_set():
        job = client.create_tuning_job("soaked", DATASET, recipe={"epochs": 20})
        began = time.monotonic()
        while time.monotonic() < until and not done.wait(0.5):
            job = client.tuning_job(job.id)
            if job.status in ("failed", "interrupted"):
                run.failures.append(f"tuning: {job.reason}")
                return
            if job.finished_at is not None:
                break
        run.steps += int(job.progress.get("step") or 0)
        with suppress(ApiError):  # it ended just now
            client.cancel_tuning_job(job.id)
        run.tuning.append((began, time.monotonic()))


def told(run: Run) -> Report:
    due, took, good = run.requests.T
    at, latency_ms = due - run.began, took * 1000
    windows = [
        {"at": float(start + WINDOW_S / 2), **quantiles(latency_ms[inside])}
        for start in np.arange(0, run.seconds - WINDOW_S / 2, WINDOW_S)
        if (inside := (at >= start) & (at < start + WINDOW_S)).any()
    ]
    spans = [(begin - run.began, end - run.began) for begin, end in run.tuning]
    tuning = np.any([(at >= begin) & (at < end) for begin, end in spans], axis=0) if spans else np.zeros(len(at), bool)
    alone = ~tuning & (at >= SETTLED * run.seconds)
    memory = [(round(when - run.began, 1), round(rss, 1), round(anon, 1)) for when, rss, anon in run.memory]
    return {
        "rate_per_s": round(len(at) / run.seconds, 1),
        "requests": len(at),
        "failed_requests": int((good == 0).sum()),
        "switches": len(run.switches),
        "written": run.written,
        "tuning_steps": run.steps,
        "tuning_s": [[round(begin, 1), round(end, 1)] for begin, end in spans],
        "failures": run.failures[:20],
        "failed_beside": len(run.failures),
        "without_tuning_ms": quantiles(latency_ms[alone]),
        "while_tuning_ms": quantiles(latency_ms[tuning]) if tuning.any() else None,
        "growth": {
            "p50": growth([(w["at"], w["p50"]) for w in windows], run.seconds),
            "p99": growth([(w["at"], w["p99"]) for w in windows], run.seconds),
            "resident": growth([(when, rss) for when, rss, _ in memory], run.seconds),
            "anonymous": growth([(when, anon) for when, _, anon in memory], run.seconds),
        },
        "windows": windows,
        "memory": memory,
    }


def quantiles(values: Floats) -> Report:
    at = np.percentile(values, [50, 99])
    return {"n": len(values), "p50": round(at[0], 1), "p99": round(at[1], 1), "max": round(float(values.max()), 1)}


def growth(points: Sequence[tuple[float, float]], seconds: float) -> float:
    """Over the settled part of the run, as a share of the median."""
    when, what = np.array([point for point in points if point[0] >= SETTLED * seconds]).T
    slope = theilslopes(what, when).slope
    return round(float(slope * (when[-1] - when[0]) / np.median(what)), 3)


def table(report: Report) -> bool:
    """Whether all is met."""
    grown, tuning = report["growth"], report["while_tuning_ms"]
    times = tuning["p99"] / report["without_tuning_ms"]["p99"] if tuning else float("inf")
    rows = [
        ("failed searches", report["failed_requests"], 0),
        ("failed switches, writes and jobs", report["failed_beside"], 0),
        ("p99 while tuning over p99 without", times, P99_TIMES),
        ("growth of p50", grown["p50"], GROWTH),
        ("growth of p99", grown["p99"], P99_GROWTH),
        ("growth of resident memory", grown["resident"], RSS_GROWTH),
        ("growth of anonymous memory", grown["anonymous"], RSS_GROWTH),
    ]
    for name, found, most in rows:
        print(f"{name:<40}{found:>10.3g}   asked <= {most:<6g}{'met' if found <= most else 'NOT MET'}")
    return all(found <= most for _, found, most in rows)


def draw(path: Path, report: Report) -> None:
    """Latency and memory over time; the job's time is shaded."""
    with picture(path, 8, 5) as figure:
        above, below = figure.subplots(2, 1, sharex=True)
        when = [window["at"] / 60 for window in report["windows"]]
        for name, colour in zip(("p99", "p50"), LINES, strict=False):
            above.plot(when, [window[name] for window in report["windows"]], color=colour, label=name)
        minutes = [at / 60 for at, _, _ in report["memory"]]
        for place, name, colour in ((1, "resident", LINES[0]), (2, "anonymous", LINES[1])):
            below.plot(minutes, [row[place] for row in report["memory"]], color=colour, label=name)
        for axes in (above, below):
            for number, (begin, end) in enumerate(report["tuning_s"]):
                axes.axvspan(begin / 60, end / 60, color=QUIET, alpha=0.12, label=None if number else "a job at work")
            axes.set_ylim(bottom=0)
        above.legend(loc="upper left", ncols=3)
        below.legend(loc="lower right", ncols=3)
        above.set_title(f"{report['rate_per_s']:.0f} searches a second, a switch every {SWITCH_S} s")
        above.set_ylabel("ms")
        below.set_ylabel("MB of the service")
        below.set_xlabel("minutes")


if __name__ == "__main__":
    main()
