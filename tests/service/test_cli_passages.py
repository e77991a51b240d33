"""`adiabat ingest` of tables and with --prune, `adiabat passages`: what they print, refuse and delete."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Service
from tests.service.test_cli import LINES, adiabat

CSV = "id,text,lang\na,the water pump,en\nb,die wasser pumpe,de\nc,pain in the heart,en\n"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.csv"
    path.write_text(CSV)
    return path


def ids(service: Service) -> list[str]:
    return sorted(passage.id for passage in service.client.passages().passages)


def on_a_terminal(service: Service, answer: str, *arguments: str) -> tuple[int, str]:
    """Exit code and what was said, where standard input is a terminal on which `answer` is typed."""
    ours, theirs = pty.openpty()
    os.write(ours, answer.encode())
    ended = subprocess.run(
        [sys.executable, "-m", "app.cli", *arguments],
        env=os.environ | {"ADIABAT_URL": service.url},
        stdin=theirs,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(theirs)
    os.close(ours)
    return ended.returncode, ended.stdout + ended.stderr


def test_a_csv_is_ingested_by_suffix_and_from_a_pipe_by_name_of_the_format(service: Service, corpus: Path) -> None:
    assert json.loads(adiabat(service, "ingest", str(corpus), "--json"))["embedded"] == 3
    assert service.client.passage("b").metadata == {"lang": "de"}
    piped = adiabat(service, "ingest", "-", "--format", "csv", "--json", stdin=CSV + "d,new,en\n")
    done = json.loads(piped)
    assert (done["embedded"], done["unchanged"]) == (1, 3)


def test_parquet_without_pyarrow_names_what_to_install(service: Service, tmp_path: Path) -> None:
    code = "import sys; sys.modules['pyarrow'] = None; from app.cli import main; main()"
    (tmp_path / "x.parquet").write_bytes(b"")
    command = [sys.executable, "-c", code, "ingest", str(tmp_path / "x.parquet"), "--url", service.url]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "pip install 'adiabat[parquet]'" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_prune_deletes_what_the_files_no_longer_hold_once_somebody_said_yes(service: Service, corpus: Path) -> None:
    adiabat(service, "ingest", str(corpus))
    service.client.upsert_passages([{"id": "from elsewhere", "text": "t"}])
    corpus.write_text("\n".join(CSV.splitlines()[:2]) + "\nz,new,en\n")
    said = adiabat(service, "ingest", str(corpus), "--prune", code=1)
    assert "3 stored passages are not in the files. Delete them? Nothing was done; --yes" in said
    assert ids(service) == ["a", "b", "c", "from elsewhere", "z"]
    code, said = on_a_terminal(service, "n\n", "ingest", str(corpus), "--prune")
    assert (code, "0 deleted" in said) == (0, True)
    assert len(ids(service)) == 5
    code, said = on_a_terminal(service, "y\n", "ingest", str(corpus), "--prune")
    assert (code, "3 deleted that were not in the files" in said) == (0, True)
    assert ids(service) == ["a", "z"]
    again = json.loads(adiabat(service, "ingest", str(corpus), "--prune", "--yes", "--json"))
    assert (again["unchanged"], again["pruned"]) == (2, 0)


def test_prune_is_refused_where_it_could_delete_what_should_stay(service: Service, corpus: Path) -> None:
    adiabat(service, "ingest", str(corpus))
    held = ids(service)
    assert "needs files" in adiabat(service, "ingest", "-", "--prune", "--yes", stdin=LINES, code=1)
    corpus.write_text(CSV.replace("c,pain in the heart,en", "c,,en"))
    said = adiabat(service, "ingest", str(corpus), "--prune", "--yes", "--skip-bad", code=1)
    assert "Nothing was deleted: with 1 bad lines" in said
    corpus.write_text(CSV.splitlines()[0] + "\n")
    assert "the files hold no passage" in adiabat(service, "ingest", str(corpus), "--prune", "--yes", code=1)
    corpus.write_text(CSV)
    gone = corpus.with_name("gone.csv")
    assert "gone.csv" in adiabat(service, "ingest", str(corpus), str(gone), "--prune", "--yes", code=1)
    assert ids(service) == held


def test_prune_looks_at_every_page_of_what_is_stored(service: Service, corpus: Path) -> None:
    service.client.stream_passages({"id": f"old {number}", "text": "t"} for number in range(2_100))
    done = json.loads(adiabat(service, "ingest", str(corpus), "--prune", "--yes", "--json"))
    assert done["pruned"] == 2_100
    assert ids(service) == ["a", "b", "c"]


def test_passages_are_browsed_in_pages_by_filter_and_shown_by_id(service: Service, corpus: Path) -> None:
    adiabat(service, "ingest", str(corpus))
    *shown, last = adiabat(service, "passages", "--limit", "2").splitlines()
    said, cursor = last.split("; the next page: --cursor ")
    assert (len(shown), said) == (2, "3 passages")
    rest = json.loads(adiabat(service, "passages", "--limit", "2", "--cursor", cursor, "--json"))
    assert (rest["count"], rest.get("next_cursor")) == (3, None)
    assert {line[0] for line in shown} | {p["id"] for p in rest["passages"]} == {"a", "b", "c"}
    german = adiabat(service, "passages", "--filter", "lang=de")
    assert german.splitlines() == ["b  die wasser pumpe", "1 passages"]
    full = adiabat(service, "passages", "b")
    assert full.splitlines() == ["b", "die wasser pumpe", '{"lang":"de"}']
    assert "[passage-not-found]" in adiabat(service, "passages", "a", "nobody", code=1)
    assert "not both" in adiabat(service, "passages", "a", "--filter", "lang=de", code=1)


def test_passages_are_deleted_by_id_or_by_filter_with_their_number_shown(service: Service, corpus: Path) -> None:
    adiabat(service, "ingest", str(corpus))
    assert "needs ids or --filter" in adiabat(service, "passages", "--delete", code=1)
    assert adiabat(service, "passages", "a", "nobody", "--delete") == "1 deleted\n"
    said = adiabat(service, "passages", "--filter", "lang=de", "--delete", code=1)
    assert "1 passages match the filter. Delete them?" in said
    assert ids(service) == ["b", "c"]
    deleted = adiabat(service, "passages", "--filter", "lang=de", "--delete", "--yes", "--json")
    assert json.loads(deleted) == {"deleted": 1}
    assert ids(service) == ["c"]
