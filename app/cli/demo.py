"""`adiabat demo`: the whole road on the sample knowledge base, in one command and a few minutes."""

import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from app.beir import CORPUS, read_jsonl, read_qrels
from app.bulk import Totals, ingest
from app.cli.common import console, progress_bar, say
from app.cli.datasets import zip_folder
from app.cli.jobs import print_result, watch
from app.client import AdiabatClient, ApiError, Unreachable
from app.corpus import count, read_files
from app.errors import BadInput, Unavailable
from app.samples import at_hand
from app.settings import LOOPBACK_HOSTS
from app.wire.health import Ready

DATASET = "beekeeping"
LANGUAGES = {"test": "English", "de": "German", "es": "Spanish", "fr": "French", "vi": "Vietnamese"}
SHOWN = 8
START_S = 120
CLIENTS = 4
TOP = 10
GATE = {"max_guard_loss": 0.05, "alpha": 0.2}  # the prove halves are 92 questions of dev and 52 of each language

Judged = dict[str, list[tuple[str, set[str]]]]  # split -> (query, ids of its relevant passages)


def install(cli: typer.Typer) -> None:
    cli.command()(demo)


def demo(
    samples: Annotated[
        Path | None, typer.Option(help="The sample knowledge base; default: the one that came along.")
    ] = None,
    data_dir: Annotated[Path, typer.Option(help="Where the demo's service keeps its data.")] = Path("demo-data"),
    port: Annotated[
        int, typer.Option(envvar="ADIABAT_PORT", help="Port; another is taken where this one is in use.")
    ] = 8000,
    exit: Annotated[bool, typer.Option("--exit", help="End instead of going on serving.")] = False,
) -> None:
    """Ingest the samples, search, tune a query encoder in the background, switch to it, search again.

    Example: adiabat demo --exit
    """
    samples = samples or at_hand()
    if samples is None:
        raise BadInput("The samples did not come along with this installation; name their folder with --samples.")
    if not (samples / CORPUS).is_file():
        raise BadInput(f"{samples} holds no {CORPUS}; name the folder of the samples with --samples, or leave it out.")
    port = _free_port(port)
    url = f"http://127.0.0.1:{port}"
    service = _start(data_dir, port)
    try:
        with AdiabatClient(url, os.environ.get("ADIABAT_API_KEY")) as client:
            _wait_ready(client, service)
            _walk(client, samples)
        if exit:
            say("\nThat was the whole road. Without --exit the demo goes on serving.")
            return
        say(f"\nServing on {url}  (open it in a browser, or: adiabat search 'bees hanging off the front' --url {url})")
        say("Ctrl-C ends it.")
        service.wait()
    except KeyboardInterrupt:
        say("\nstopping")
    finally:
        service.terminate()
        service.wait()


def _walk(client: AdiabatClient, samples: Path) -> None:
    judged = _read_judged(samples)
    shown = random.Random(7).sample(judged["test"], SHOWN)

    _step(1, "Ingest: every passage is embedded once, now, and never again")
    _ingest(client, samples / CORPUS)

    _step(2, "Search with the base encoder")
    _show_search(client, shown[0][0])

    _step(3, "Tune a query encoder in the background; the service goes on answering")
    with tempfile.TemporaryDirectory() as scratch:
        client.put_dataset(DATASET, zip_folder(samples, Path(scratch) / "samples.zip", corpus=False))
    guards = [f"{DATASET}:{split}" for split in LANGUAGES if split != "test"]
    job = watch(client, client.create_tuning_job(DATASET, DATASET, guards=guards, gate=GATE))
    print_result(job)
    if job.status != "succeeded" or job.encoder is None:
        raise Unavailable(f"The tuning job ended as {job.status}: {job.reason}")
    tuned = f"{job.encoder.name}@{job.encoder.version}"

    _step(4, f"Switch to {tuned} while serving")
    switched = client.activate(tuned)
    say(f"generation {switched.encoder.generation}, the switch took {switched.swap.switch_us:.1f} µs")

    _step(5, "The same questions again: rank of the right passage")
    _show_ranks(client, shown, tuned)

    _step(6, "All held-out questions, by language (MRR@10 over the live service)")
    _show_languages(client, judged, tuned)


def _step(number: int, title: str) -> None:
    console.print(f"\n{number}. {title}", style="bold")


def _ingest(client: AdiabatClient, corpus: Path) -> None:
    files = [str(corpus)]
    with progress_bar("ingesting", count(files)) as bar:

        def on_bad(error: Exception) -> None:
            raise error

        def on_progress(totals: Totals) -> None:
            bar.update(totals.done)

        totals = ingest(client, read_files(files, on_bad), on_progress, on_bad)
    say(f"{totals.embedded} embedded, {totals.unchanged} were there already")


def _show_search(client: AdiabatClient, query: str) -> None:
    answer = client.search(query, limit=3)
    say(f"“{query}”")
    for rank, hit in enumerate(answer.hits, 1):
        say(f"  {rank}. {hit.score:.3f}  {hit.title}")


def _show_ranks(client: AdiabatClient, shown: list[tuple[str, set[str]]], tuned: str) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("question", "base", tuned):
        table.add_column(heading, justify="left" if heading == "question" else "right")
    for query, relevant in shown:
        ranks = [_rank(client, query, relevant, encoder) for encoder in ("base@1", tuned)]
        table.add_row(query, *(str(rank) if rank else f">{TOP}" for rank in ranks))
    console.print(table)


def _show_languages(client: AdiabatClient, judged: Judged, tuned: str) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("language", "questions", "base", "tuned", "change"):
        table.add_column(heading, justify="left" if heading == "language" else "right")
    with progress_bar("searching", 2 * sum(len(judged[split]) for split in LANGUAGES)) as bar:
        done = 0
        for split, language in LANGUAGES.items():
            means = []
            for encoder in ("base@1", tuned):
                means.append(_mean_reciprocal_rank(client, judged[split], encoder))
                done += len(judged[split])
                bar.update(done)
            note = language if split == "test" else f"{language} (not tuned on)"
            row = (
                note,
                str(len(judged[split])),
                *(f"{mean:.3f}" for mean in means),
                f"{means[1] - means[0]:+.3f}",
            )
            table.add_row(*row)
    console.print(table)


def _mean_reciprocal_rank(client: AdiabatClient, judged: list[tuple[str, set[str]]], encoder: str) -> float:
    with ThreadPoolExecutor(CLIENTS) as searchers:
        ranks = list(searchers.map(lambda item: _rank(client, item[0], item[1], encoder), judged))
    return sum(1 / rank for rank in ranks if rank) / len(ranks)


def _rank(client: AdiabatClient, query: str, relevant: set[str], encoder: str) -> int | None:
    hits = client.search(query, limit=TOP, encoder=encoder).hits
    return next((rank for rank, hit in enumerate(hits, 1) if hit.id in relevant), None)


def _read_judged(samples: Path) -> Judged:
    texts = {query["_id"]: query["text"] for _, query in read_jsonl(samples / "queries.jsonl")}
    judged: Judged = {}
    for split in LANGUAGES:
        relevant: dict[str, set[str]] = defaultdict(set)
        for _, query_id, passage_id, _ in read_qrels(samples / "qrels" / f"{split}.tsv"):
            relevant[query_id].add(passage_id)
        judged[split] = [(texts[query_id], ids) for query_id, ids in relevant.items()]
    return judged


def _start(data_dir: Path, port: int) -> subprocess.Popen[bytes]:
    host = os.environ.get("ADIABAT_HOST", "127.0.0.1")
    if host not in LOOPBACK_HOSTS:
        raise BadInput(f"The demo serves on loopback only, and ADIABAT_HOST is {host}; unset it.")
    command = [sys.executable, "-P", "-m", "app.cli", "serve", "--data-dir", str(data_dir), "--port", str(port)]
    quiet = {"ADIABAT_LOG_LEVEL": "warning"}  # a line for each of its searches would bury the walk
    return subprocess.Popen(command, env=quiet | os.environ)


def _wait_ready(client: AdiabatClient, service: subprocess.Popen[bytes]) -> Ready:
    """At first start the passage encoder is copied and its graph exported: this takes some seconds."""
    say("Starting the service (the first start also prepares the passage encoder) …")
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if service.poll() is not None:
            raise Unavailable(f"The service ended with status {service.returncode} instead of starting; see above.")
        try:
            return client.ready()
        except (Unreachable, ApiError):
            time.sleep(0.2)
    raise Unavailable(f"The service was not ready within {START_S} s.")


def _free_port(wanted: int) -> int:
    for port in (wanted, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise BadInput("No port is free on 127.0.0.1.")
