"""`adiabat judge`."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from app.cli.common import ApiKey, AsJson, Url, connect, fail, print_json, progress_bar, say
from app.cli.searching import snippet
from app.client import DEFAULT_URL, AdiabatClient, ApiError
from app.errors import BadInput
from app.wire import findings
from app.wire.judgments import JudgmentCreate, JudgmentPublic

REFUSED_LINE = (404, 422)  # for what the line says


def install(cli: typer.Typer) -> None:
    cli.command()(judge)


def judge(
    query: Annotated[str | None, typer.Argument(help="As it was asked.", show_default=False)] = None,
    passage_id: Annotated[str | None, typer.Argument(help="A stored passage.", show_default=False)] = None,
    relevance: Annotated[
        int | None, typer.Argument(help="0: not relevant; 1 to 3: relevant, more and more.", show_default=False)
    ] = None,
    lang: Annotated[
        str | None, typer.Option(help="The query's language, such as 'de'; with --list, only those in it.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="Judge by lines of JSON: query, passage_id, relevance, lang if wanted.")
    ] = None,
    listed: Annotated[
        bool, typer.Option("--list", help="Show what is judged, newest first, or of QUERY alone.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many to list.")] = 20,
    cursor: Annotated[str | None, typer.Option(help="Go on where the last list ended: what it named.")] = None,
    delete: Annotated[
        list[str] | None, typer.Option("--delete", help="Take back the judgment of this id (repeatable).")
    ] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Say how relevant a passage is to a query: feedback from production, kept as the dataset `judgments`.

    The newest judgment of a query and a passage counts, so that a command or a file may be run again. Tune and measure
    on them with --dataset judgments, or judgments:dev: the oldest four fifths of the queries are its split train, the
    newest fifth is dev.

    Example: adiabat judge "why do bees hang off the front" en-017 3 --lang en

    Example: adiabat judge --file judgments.jsonl

    Example: adiabat judge --list --limit 5
    """
    if [passage_id is not None, file is not None, listed, bool(delete)].count(True) != 1:
        raise BadInput("Give QUERY PASSAGE_ID RELEVANCE, --file, --list or --delete: one of them.")
    with connect(url, api_key) as client:
        if listed:
            _list(client, query, lang, cursor, limit, as_json=as_json)
        elif delete:
            _delete(client, delete, as_json=as_json)
        elif file is not None:
            _judge_file(client, file, as_json=as_json)
        elif query is None or passage_id is None or relevance is None:
            raise BadInput("QUERY PASSAGE_ID RELEVANCE go together: RELEVANCE is missing.")
        else:
            made = client.judge(query, passage_id, relevance, lang=lang)
            print_json(made) if as_json else _say(made)


def _list(
    client: AdiabatClient, query: str | None, lang: str | None, cursor: str | None, limit: int, *, as_json: bool
) -> None:
    page = client.judgments(cursor, limit, query, lang)
    if as_json:
        print_json(page)
        return
    for each in page.judgments:
        _say(each)
    say(f"{page.count} judgments" + (f"; the next page: --cursor {page.next_cursor}" if page.next_cursor else ""))


def _delete(client: AdiabatClient, ids: list[str], *, as_json: bool) -> None:
    for judgment_id in ids:
        client.delete_judgment(judgment_id)
    if as_json:
        print_json({"deleted": len(ids)})
    else:
        say(f"{len(ids)} taken back")


def _judge_file(client: AdiabatClient, file: Path, *, as_json: bool) -> None:
    """What a line says wrong is told by its number and stops nothing: the whole file may be sent again once mended."""
    lines = [(number, line) for number, line in enumerate(file.read_bytes().split(b"\n"), 1) if line.strip()]
    judged = 0
    with progress_bar("judging", len(lines)) as bar:
        for done, (number, line) in enumerate(lines, 1):
            if problem := _judge_line(client, line):
                fail(f"{file} line {number}: {problem}")
            else:
                judged += 1
            bar.update(done)
    if as_json:
        print_json({"judged": judged, "refused": len(lines) - judged})
    else:
        say(f"{judged} judged")
    if judged < len(lines):
        raise BadInput(f"{len(lines) - judged} of {len(lines)} lines were refused; the others are kept.")


def _judge_line(client: AdiabatClient, line: bytes) -> str | None:
    """What is wrong with it."""
    try:
        said = JudgmentCreate.model_validate_json(line)
        client.judge(said.query, said.passage_id, said.relevance, lang=said.lang)
    except ValidationError as error:
        return findings.of_line(error)
    except ApiError as error:
        if error.status not in REFUSED_LINE:
            raise
        return f"{error.detail} [{error.slug}]"
    return None


def _say(judgment: JudgmentPublic) -> None:
    lang = f" ({judgment.lang})" if judgment.lang else ""
    say(f"{judgment.id}  {judgment.relevance}  {judgment.passage_id}  {snippet(judgment.query)}{lang}")
