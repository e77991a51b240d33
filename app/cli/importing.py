"""`adiabat import …`: collections that something else embedded, taken over without embedding them again."""

import time
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.common import AsJson, fail, print_json, progress_bar, say
from app.cli.serving import read_settings
from app.errors import BadInput
from app.takeover import Limits

if TYPE_CHECKING:
    from app.settings import Settings
    from app.takeover.source import Fields, Source

ABOUT = "Take over passages with the vectors they have: nothing is embedded again but a sample."
TOLD_BAD = 5

cli = typer.Typer(help=ABOUT, no_args_is_help=True)

Encoder = Annotated[
    str | None,
    typer.Option(
        help="What made the vectors: a sentence-transformers folder, or a name on the hub (ADIABAT_HUB=1). "
        "Default: what the data folder has, else all-MiniLM-L6-v2."
    ),
]
PassagePrompt = Annotated[
    str | None, typer.Option(help="What was put before each text when it was embedded; '' for nothing.")
]
QueryPrompt = Annotated[str | None, typer.Option(help="What is put before queries from now on; '' for nothing.")]
TextField = Annotated[str, typer.Option(help="Where the text is that was embedded; a dot leads into an object.")]
TitleField = Annotated[str | None, typer.Option(help="Where a title is that was embedded before the text, in a line.")]
IdField = Annotated[str | None, typer.Option(help="Where the passage's id is; default: the point's own.")]
MetadataField = Annotated[str | None, typer.Option(help="An object to be the metadata; default: all that is left.")]
VectorField = Annotated[str, typer.Option(help="The column that holds the vectors, as lists of numbers.")]
Samples = Annotated[int, typer.Option(min=20, help="How many passages are embedded to compare.")]
MaxDifferent = Annotated[
    float, typer.Option(min=0, max=0.5, help="Share of the sample that may differ, as texts that were edited since.")
]
MinCosine = Annotated[
    float,
    typer.Option(min=0.9, max=1, help="From which cosine on vectors count as equal; lower for quantised ones."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Compare the sample, and write nothing.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Report points that make no passage, and go on.")]
DataDir = Annotated[Path | None, typer.Option(help="The data folder they go into; ADIABAT_DATA_DIR.")]


@cli.callback()
def _group() -> None:
    """Take over passages with the vectors they have: nothing is embedded again but a sample.

    The encoder that is named must have made them: a sample is embedded and compared, and what differs is told by id.
    It becomes the base of the data folder. The service must be stopped. A run that broke goes on when it is repeated.
    """


@cli.command()
def qdrant(
    source: Annotated[
        str, typer.Option("--from", help="Address of a Qdrant server, or a folder that QdrantClient(path=…) wrote.")
    ],
    collection: Annotated[str, typer.Option(help="The collection; it is only read.")],
    encoder: Encoder = None,
    text_field: TextField = "text",
    title_field: TitleField = None,
    id_field: IdField = None,
    metadata_field: MetadataField = None,
    vector_name: Annotated[str | None, typer.Option(help="Which, where points have several vectors.")] = None,
    from_api_key: Annotated[
        str | None, typer.Option(envvar="QDRANT_API_KEY", help="Key of the server it comes from.")
    ] = None,
    passage_prompt: PassagePrompt = None,
    query_prompt: QueryPrompt = None,
    samples: Samples = 200,
    max_different: MaxDifferent = 0.0,
    min_cosine: MinCosine = 0.999,
    dry_run: DryRun = False,
    skip_bad: SkipBad = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """A collection of Qdrant, made by whatever program.

    It is copied: into the data folder, or, where ADIABAT_QDRANT_URL is set, into the collection ADIABAT_COLLECTION of
    that server. Name only a folder of your own as --from: qdrant-client keeps pickles in it, which can run code.

    Example: adiabat import qdrant --from http://qdrant:6333 --collection docs --encoder ./my-model --data-dir ./docs
    """
    settings = _settings(data_dir, encoder, passage_prompt, query_prompt)
    limits = Limits(samples=samples, max_different=max_different, min_cosine=min_cosine)
    from app.takeover.qdrant import QdrantSource, open_client
    from app.takeover.source import Fields

    client = open_client(source, from_api_key)
    try:
        fields = Fields(text=text_field, title=title_field, id=id_field, metadata=metadata_field)
        found = QdrantSource(client, collection, vector_name)
        _take_over(found, fields, settings, limits, dry_run, skip_bad, as_json)
    finally:
        client.close()


@cli.command()
def elasticsearch(
    source: Annotated[str, typer.Option("--from", help="Address of Elasticsearch, 8 or newer.")],
    index: Annotated[str, typer.Option(help="The index; it is only read.")],
    encoder: Encoder = None,
    vector_field: Annotated[str | None, typer.Option(help="Which, where there are several of dense vectors.")] = None,
    text_field: TextField = "text",
    title_field: TitleField = None,
    id_field: IdField = None,
    metadata_field: MetadataField = None,
    from_api_key: Annotated[
        str | None, typer.Option(envvar="ELASTICSEARCH_API_KEY", help="API key of Elasticsearch, as it encodes it.")
    ] = None,
    passage_prompt: PassagePrompt = None,
    query_prompt: QueryPrompt = None,
    samples: Samples = 200,
    max_different: MaxDifferent = 0.0,
    min_cosine: MinCosine = 0.999,
    dry_run: DryRun = False,
    skip_bad: SkipBad = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """An index of Elasticsearch with a field of dense vectors, one for each document.

    Tested against a stand-in for its routes, not a server: try --dry-run first.

    Example: adiabat import elasticsearch --from http://elastic:9200 --index docs --vector-field embedding
    """
    settings = _settings(data_dir, encoder, passage_prompt, query_prompt)
    limits = Limits(samples=samples, max_different=max_different, min_cosine=min_cosine)
    from app.takeover.elasticsearch import ElasticsearchSource
    from app.takeover.source import Fields

    found = ElasticsearchSource(source, index, vector_field, from_api_key)
    try:
        fields = Fields(text=text_field, title=title_field, id=id_field, metadata=metadata_field)
        _take_over(found, fields, settings, limits, dry_run, skip_bad, as_json)
    finally:
        found.close()


@cli.command()
def beir(
    folder: Annotated[Path, typer.Argument(help="A folder in BEIR shape, with corpus.jsonl.")],
    vectors: Annotated[
        Path,
        typer.Option(help="Their vectors in the corpus's order, (passages, dimensions), by numpy.save."),
    ],
    encoder: Encoder = None,
    title: Annotated[bool, typer.Option("--title/--no-title", help="Whether titles were embedded too.")] = True,
    passage_prompt: PassagePrompt = None,
    query_prompt: QueryPrompt = None,
    samples: Samples = 200,
    max_different: MaxDifferent = 0.0,
    min_cosine: MinCosine = 0.999,
    dry_run: DryRun = False,
    skip_bad: SkipBad = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """A corpus in BEIR shape and a file with its vectors. Questions and judgments: adiabat datasets put.

    Example: adiabat import beir ./scifact --vectors scifact.npy --data-dir ./scifact-data
    """
    settings = _settings(data_dir, encoder, passage_prompt, query_prompt)
    limits = Limits(samples=samples, max_different=max_different, min_cosine=min_cosine)
    from app.takeover.files import beir_source
    from app.takeover.source import Fields

    fields = Fields(title="title" if title else None, id="_id", metadata="metadata")
    _take_over(beir_source(folder, vectors), fields, settings, limits, dry_run, skip_bad, as_json)


@cli.command()
def parquet(
    files: Annotated[list[str], typer.Argument(help="Parquet files with a vector in each row.")],
    encoder: Encoder = None,
    vector_field: VectorField = "vector",
    text_field: TextField = "text",
    title_field: TitleField = None,
    id_field: IdField = "id",
    metadata_field: MetadataField = None,
    passage_prompt: PassagePrompt = None,
    query_prompt: QueryPrompt = None,
    samples: Samples = 200,
    max_different: MaxDifferent = 0.0,
    min_cosine: MinCosine = 0.999,
    dry_run: DryRun = False,
    skip_bad: SkipBad = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Parquet with a column of vectors, as `adiabat export passages` and many embedding pipelines write it.

    Example: adiabat import parquet wiki-0.parquet wiki-1.parquet --vector-field emb --title-field title
    """
    settings = _settings(data_dir, encoder, passage_prompt, query_prompt)
    limits = Limits(samples=samples, max_different=max_different, min_cosine=min_cosine)
    from app.takeover.files import parquet_source
    from app.takeover.source import Fields

    fields = Fields(text=text_field, title=title_field, id=id_field, metadata=metadata_field)
    found = parquet_source(", ".join(files), files, vector_field)
    _take_over(found, fields, settings, limits, dry_run, skip_bad, as_json)


@cli.command()
def hub(
    name: Annotated[str, typer.Argument(metavar="OWNER/NAME[@REVISION]", help="A dataset with Parquet in it.")],
    encoder: Encoder = None,
    files: Annotated[str, typer.Option(help="Which of its files.")] = "*.parquet",
    vector_field: VectorField = "vector",
    text_field: TextField = "text",
    title_field: TitleField = None,
    id_field: IdField = "id",
    metadata_field: MetadataField = None,
    passage_prompt: PassagePrompt = None,
    query_prompt: QueryPrompt = None,
    samples: Samples = 200,
    max_different: MaxDifferent = 0.0,
    min_cosine: MinCosine = 0.999,
    dry_run: DryRun = False,
    skip_bad: SkipBad = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """A dataset on the hub whose Parquet files have a column of vectors; they are fetched. Needs ADIABAT_HUB=1.

    Example: adiabat import hub OWNER/wiki-embedded --files 'data/en-*.parquet' --vector-field emb --encoder OWNER/MODEL
    """
    settings = _settings(data_dir, encoder, passage_prompt, query_prompt)
    limits = Limits(samples=samples, max_different=max_different, min_cosine=min_cosine)
    from app.hub import check_enabled, snapshot
    from app.takeover.files import parquet_source
    from app.takeover.source import Fields

    check_enabled(settings.hub, name)
    owned, _, revision = name.partition("@")
    folder = snapshot(owned, revision or None, kind="dataset", wanted=[files])
    # The folder is the library's cache: what was fetched before by another pattern is in it too.
    there = sorted(str(path) for path in folder.rglob("*.parquet") if fnmatch(str(path.relative_to(folder)), files))
    if not there:
        raise BadInput(f"{owned!r} on the hub holds nothing that matches {files!r} (--files).")
    fields = Fields(text=text_field, title=title_field, id=id_field, metadata=metadata_field)
    found = parquet_source(f"{owned}@{folder.name[:8]}", there, vector_field)
    _take_over(found, fields, settings, limits, dry_run, skip_bad, as_json)


def _settings(data_dir: Path | None, encoder: str | None, passage: str | None, query: str | None) -> "Settings":
    given: dict[str, Any] = {
        "data_dir": data_dir,
        "passage_encoder": encoder,
        "passage_prompt": passage,
        "query_prompt": query,
    }
    return read_settings({name: value for name, value in given.items() if value is not None})


def _take_over(
    source: "Source",
    fields: "Fields",
    settings: "Settings",
    limits: Limits,
    dry_run: bool,
    skip_bad: bool,
    as_json: bool,
) -> None:
    from app.takeover.bringing import bring, examine  # the service's parts take a second to import; --help must not
    from app.takeover.encoder import asking, named_encoder
    from app.takeover.source import BadPoint

    began, bad = time.monotonic(), 0

    def on_bad(error: BadPoint) -> None:
        nonlocal bad
        bad += 1
        if not skip_bad:
            raise BadInput(f"In {source.said}, {error}. Mend it there, or leave such points out (--skip-bad).")
        if bad <= TOLD_BAD:
            fail(f"skipped: {error}")

    with asking(named := named_encoder(settings), settings) as asked:
        count = source.count()
        say_unless(as_json, f"{source.said}: {count} points; comparing {min(limits.samples, count)} with {named.said}")
        examined = examine(source, fields, asked, settings, limits)
        finding = examined.finding
        say_unless(as_json, finding.sentence(named.said))
        told: dict[str, Any] = {"points": count, "encoder": named.said, "sample": asdict(finding)}
        if dry_run:
            say_unless(as_json, f"nothing was written (--dry-run); {count} points would be copied")
        else:
            with progress_bar("taking over", count) as bar:
                try:
                    brought = bring(
                        source, fields, asked, examined, settings, on_bad=on_bad, copied=lambda done: bar.update(done)
                    )
                except KeyboardInterrupt:
                    fail("interrupted; what came is stored. Run the same command again: it goes on from there.")
                    raise
            told |= asdict(brought)
            say_unless(
                as_json,
                f"{brought.written} passages taken over, {brought.unchanged} were there, {brought.bad} bad points; the "
                f"store holds {brought.there}; {time.monotonic() - began:.1f} s. Only the sample was embedded.",
            )
            say_unless(as_json, f"start the service: adiabat serve --data-dir {settings.data_dir}")
    if as_json:
        print_json(told | {"dry_run": dry_run, "took_s": round(time.monotonic() - began, 3)})


def say_unless(as_json: bool, line: str) -> None:
    if not as_json:
        say(line)
