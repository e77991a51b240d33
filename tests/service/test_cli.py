"""The command line against a real service; what it prints and how it exits."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Service
from tests.service import encoders

LINES = (
    '{"_id": "a", "title": "pump", "text": "the water pump leaks", "metadata": {"lang": "en"}}\n'
    '{"id": "b", "text": "die wasser pumpe", "metadata": {"lang": "de"}}\n'
    "\n"
    '{"id": 3, "text": "pain in the heart"}\n'
)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text(LINES)
    return path


def adiabat(service: Service, *arguments: str, stdin: str = "", code: int = 0, error: bool = True) -> str:
    """Standard output of the command; where it failed as expected, standard error unless not `error`."""
    ended = subprocess.run(
        [sys.executable, "-m", "app.cli", *arguments],
        env=os.environ | {"ADIABAT_URL": service.url},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.stderr if code and error else ended.stdout


def test_search_shows_ranks_of_another_encoder(service: Service, corpus: Path, tiny: Path, sources: Path) -> None:
    adiabat(service, "ingest", str(corpus))
    service.client.register_encoder("tuned", path=str(encoders.near(tiny, sources / "tuned", scale=0.1)), force=True)
    said = adiabat(service, "search", "water", "--encoder", "tuned", "--compare-to", "base", "--limit", "1")
    assert "there" in said
    assert "compared to base@1" in said
    found = json.loads(adiabat(service, "search", "water", "--compare-to", "tuned", "--json"))
    assert {hit["compared_rank"] for hit in found["hits"]} == set(range(1, len(found["hits"]) + 1))


def test_search_shows_a_passage_as_it_is_written(service: Service) -> None:
    text, source = "press [/red] or [bold]green[/bold] :bee:", "[red]"
    passage = {"id": "[/x]", "title": "[i]", "text": text, "metadata": {"source": source}}
    service.client.upsert_passages([passage])
    for options in ([], ["--compare-to", "base", "--explain"], ["--group-by", "source"]):
        said = " ".join(adiabat(service, "search", "press", *options).split())  # lines break where the table is full
        assert "[/x] [i]: press [/red] or" in said
        assert "[bold]green[/bold] :bee:" in said
    assert source in said


def test_ingest_twice_embeds_once_and_search_finds(service: Service, corpus: Path) -> None:
    first = json.loads(adiabat(service, "ingest", str(corpus), "--json"))
    assert (first["embedded"], first["unchanged"]) == (3, 0)
    again = json.loads(adiabat(service, "ingest", str(corpus), "--json"))
    assert (again["embedded"], again["unchanged"]) == (0, 3)
    corpus.write_text(LINES.replace('"lang": "de"', '"lang": "at"'))
    moved = json.loads(adiabat(service, "ingest", str(corpus), "--json"))
    assert (moved["embedded"], moved["metadata_updated"], moved["unchanged"]) == (0, 1, 2)
    found = json.loads(adiabat(service, "search", "water", "--filter", "lang=at", "--json"))
    assert [hit["id"] for hit in found["hits"]] == ["b"]
    assert "base@1, generation 1" in adiabat(service, "search", "water")
    assert "no hits with --filter lang=xx" in adiabat(service, "search", "water", "--filter", "lang=xx")


def test_a_bad_line_stops_the_ingest_by_number_unless_told_to_skip(service: Service, corpus: Path) -> None:
    corpus.write_bytes(LINES.encode() + b'{"id": "x", "text": "\xff"}\n')
    assert f"{corpus} line 5: is not valid UTF-8" in adiabat(service, "ingest", str(corpus), code=1)
    corpus.write_text(LINES + '{"id": "x"}\nnot json\n{"id": "y", "text": "t", "colour": "red"}\n')
    said = adiabat(service, "ingest", str(corpus), code=1)
    assert f"{corpus} line 5: the passage 'x' has no text" in said
    done = json.loads(adiabat(service, "ingest", str(corpus), "--skip-bad", "--json"))
    assert (done["embedded"], done["bad_lines"]) == (3, 3)
    corpus.write_text('{"id": "x", "txt": "t"}\n')
    assert "has the unknown field 'txt' (did you mean 'text'?); put" in adiabat(service, "ingest", str(corpus), code=1)
    corpus.write_text('{"id": "x", "text": "t", "category": "c"}\n')
    assert "'category' (what is taken: id, metadata, text, title); put your own fields under 'metadata'" in adiabat(
        service, "ingest", str(corpus), code=1
    )
    corpus.write_text('{"id": "x"}\nnot json\n')
    assert "no line is a passage" in adiabat(service, "ingest", str(corpus), "--skip-bad", code=1)


def test_what_only_the_service_refuses_is_told_by_line_and_skipped_too(service: Service, corpus: Path) -> None:
    long = json.dumps({"id": "long", "text": "water " * 10_000})
    corpus.write_text(
        LINES + f'{long}\n{{"id": "nan", "text": "t", "metadata": {{"x": NaN}}}}\n{{"id": "s", "text": "\\ud800"}}\n'
    )
    said = adiabat(service, "ingest", str(corpus), code=1)
    assert f"{corpus} line 6" in said or f"{corpus} line 5" in said
    done = json.loads(adiabat(service, "ingest", str(corpus), "--skip-bad", "--json"))
    assert (done["embedded"] + done["unchanged"], done["bad_lines"]) == (3, 3)


def test_standard_input_is_read_and_a_missing_file_is_named(service: Service) -> None:
    assert json.loads(adiabat(service, "ingest", "-", "--json", stdin=LINES))["embedded"] == 3
    assert "nowhere.jsonl cannot be read" in adiabat(service, "ingest", "nowhere.jsonl", code=1)


def test_encoders_are_registered_switched_rolled_back_and_deleted(service: Service, tiny: Path, sources: Path) -> None:
    folder = encoders.near(tiny, sources / "bees")
    assert "bees@1: probed" in adiabat(service, "encoders", "register", "bees", "--path", str(folder))
    assert "bees@1 is active, generation 2" in adiabat(service, "encoders", "activate", "bees")
    assert "base@1 is active, generation 3" in adiabat(service, "encoders", "rollback")
    assert "generation" in adiabat(service, "encoders", "activate", "bees", "--if-generation", "1", code=1)
    listed = adiabat(service, "encoders", "list")
    assert "bees@1" in listed
    assert "*" in listed
    assert adiabat(service, "encoders", "history").split()[:2] == ["3", "base@1"]
    assert "previous" in adiabat(service, "encoders", "delete", "bees@1", code=1)


def test_refusals_and_a_missing_service_are_one_sentence_with_their_own_exit_codes(service: Service) -> None:
    assert "[encoder-not-found]" in adiabat(service, "encoders", "activate", "nobody", code=1)
    assert "--recipe is not a JSON object" in adiabat(service, "tune", "x", "--dataset", "d", "--recipe", "{", code=1)
    assert "does not answer" in adiabat(service, "health", "--url", "http://127.0.0.1:9", code=3)
    assert "begins with http://" in adiabat(service, "health", "--url", "127.0.0.1:9", code=3)
    assert "(Invalid port: 'x')" in adiabat(service, "health", "--url", "http://127.0.0.1:x", code=3)
    assert "hunter2" not in adiabat(service, "health", "--url", "http://me:hunter2@127.0.0.1:9", code=3)
    assert "(--api-key, ADIABAT_API_KEY) begins or ends" in adiabat(service, "health", "--api-key", "häkelt", code=1)
    assert "query" in adiabat(service, "search", code=2)
    assert "nowhere does not exist" in adiabat(service, "datasets", "put", "x", "nowhere", code=1)


def test_the_version_is_told(service: Service) -> None:
    assert adiabat(service, "--version") == f"adiabat {service.client.version()}\n"


def test_every_command_explains_itself_with_an_example(service: Service) -> None:
    for command in ("serve", "ingest", "search", "passages", "tune", "jobs", "demo"):
        assert "Example: adiabat" in adiabat(service, command, "--help")


def test_every_command_shows_an_example() -> None:
    from typer.main import get_command

    from app.cli import cli

    def commands(group: Any, path: str) -> Iterator[tuple[str, Any]]:
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from commands(command, f"{path} {name}")
            else:
                yield f"{path} {name}", command

    found = dict(commands(get_command(cli), "adiabat"))
    assert len(found) > 20
    for name, command in found.items():
        assert f"Example: {name}" in " ".join(command.help.split()), name
