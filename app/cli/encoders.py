"""`adiabat encoders …`: list, show, register, export, activate, rollback, history, delete."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from rich.table import Table

from app.cli.common import ApiKey, AsJson, Url, connect, console, print_json, progress_bar, say
from app.cli.jobs import find
from app.cli.packing import Watched, pack_folder, unpack_into
from app.client import DEFAULT_URL, AdiabatClient
from app.wire.active_encoder import STICKY_KEY, SwitchedPublic
from app.wire.encoders import EncoderPublic

cli = typer.Typer(help="Query encoders: list, register, switch, go back.", no_args_is_help=True)

Key = Annotated[str, typer.Argument(help="name or name@version", metavar="NAME[@VERSION]")]


@cli.command("list")
def list_encoders(url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """All encoders; the active one is marked with *.

    Example: adiabat encoders list
    """
    with connect(url, api_key) as client:
        found = client.encoders()
    if as_json:
        print_json(found)
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("", "encoder", "admission", "state", "MB", "dev MRR@10", "digest"):
        table.add_column(heading, justify="right" if heading == "MB" else "left")
    for item in found:
        dev = item.metrics.get("dev")
        gain = f"{dev['before']:.3f} → {dev['after']:.3f}" if dev else ""
        mark = "*" if item.active else ""
        name, size = f"{item.name}@{item.version}", f"{item.size_bytes / 1e6:.0f}"
        table.add_row(mark, name, item.admission, item.state, size, gain, item.digest[7:19])
    console.print(table)


@cli.command()
def show(key: Key, url: Url = DEFAULT_URL, api_key: ApiKey = None) -> None:
    """Everything known of one encoder, as JSON.

    Example: adiabat encoders show bees@2
    """
    with connect(url, api_key) as client:
        print_json(client.encoder(key))


@cli.command()
def register(
    name: str,
    source: Annotated[Path | None, typer.Argument(help="A folder or an archive here; it is uploaded.")] = None,
    path: Annotated[Path | None, typer.Option(help="A folder on the server (see ADIABAT_SOURCE_DIRS).")] = None,
    hub: Annotated[str | None, typer.Option(help="A name on the model hub (see ADIABAT_HUB).")] = None,
    revision: Annotated[str | None, typer.Option(help="With --hub: branch, tag or commit.")] = None,
    job: Annotated[str | None, typer.Option(help="Id of a finished tuning job.")] = None,
    description: Annotated[str, typer.Option(help="What a colleague should know of it.")] = "",
    label: Annotated[list[str] | None, typer.Option(help="KEY=VALUE, any number of times.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Register although the probes disagree.")] = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Register an encoder: a folder or archive from here, or what the server itself can reach.

    Example: adiabat encoders register bees ./my-model
    """
    if [source, path, hub, job].count(None) != 3:
        raise typer.BadParameter("give one of SOURCE, --path, --hub and --job")
    said: dict[str, Any] = {"description": description, "labels": _labels(label or []), "force": force}
    with connect(url, api_key) as client:
        if source is not None:
            made = _upload(client, name, source, said)
        else:
            made = client.register_encoder(
                name, path=_on_server(path), hub=hub, revision=revision, job=job and find(client, job).id, **said
            )
    if as_json:
        print_json(made)
        return
    say(f"{made.name}@{made.version}: {made.admission}, {made.size_bytes / 1e6:.1f} MB")
    for check in made.checks:
        say(
            f"  {'ok ' if check['passed'] else 'NO '} {check['check']}: {check['value']} (expected {check['expected']})"
        )


def _on_server(path: Path | None) -> str | None:
    """As the server sees it: what is there from here too is meant from here."""
    return None if path is None else str(path.resolve() if path.exists() else path)


def rules_of(given: list[str]) -> dict[str, Any] | bool:
    """What `--rule` says. Values are JSON; True where none is given: the defaults."""
    found = {}
    for each in given:
        name, _, value = each.partition("=")
        try:
            found[name] = json.loads(value)
        except ValueError as error:
            raise typer.BadParameter(f"--rule {each}: NAME=VALUE is expected, such as latency=2") from error
    return found or True


def _labels(given: list[str]) -> dict[str, str]:
    pairs = [each.partition("=") for each in given]
    if wrong := [key for key, separator, _ in pairs if not (key and separator)]:
        raise typer.BadParameter(f"--label {wrong[0]} is not KEY=VALUE")
    return {key: value for key, _, value in pairs}


def _upload(client: AdiabatClient, name: str, source: Path, said: dict[str, Any]) -> EncoderPublic:
    if not source.exists():
        raise typer.BadParameter(f"{source} does not exist here; for a folder on the server give --path")
    with TemporaryDirectory() as scratch, progress_bar(f"sending {source.name}") as bar:
        archive = pack_folder(source, Path(scratch) / "encoder.tar") if source.is_dir() else source
        with Watched(archive, bar) as file:
            return client.register_encoder(name, archive=file, **said)


@cli.command()
def export(
    key: Key,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Must not exist, or be empty.")],
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Fetch an encoder as a whole sentence-transformers folder.

    Example: adiabat encoders export bees ./bees
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise typer.BadParameter(f"{folder} is not empty; give a folder that does not exist yet")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (
        TemporaryDirectory(dir=folder.parent, prefix=".export-") as scratch,  # beside it: a rename puts it in place
        connect(url, api_key) as client,
    ):
        archive = Path(scratch) / "encoder.tar"
        with progress_bar(f"fetching {key}") as bar:
            client.download_encoder(key, archive, lambda done, total: bar.update(done, total=total))
        unpack_into(archive, folder)
    if as_json:
        print_json({"folder": str(folder.resolve())})
        return
    say(f"{key} is in {folder}; in Python: SentenceTransformer({str(folder)!r})")


@cli.command()
def activate(
    key: Key,
    force: Annotated[bool, typer.Option("--force", help="Also one that its gate rejected.")] = False,
    if_generation: Annotated[int | None, typer.Option(help="Only if this generation is still active.")] = None,
    canary: Annotated[
        float | None, typer.Option(help="Only for so many percent of the searches, beside the active one.")
    ] = None,
    sticky_by: Annotated[
        str, typer.Option(help="With --canary: 'key', or the header that tells who asks, such as X-User-Id.")
    ] = STICKY_KEY,
    interleave: Annotated[
        bool, typer.Option("--interleave", help="With --canary: both answer those together, their hits in turns.")
    ] = False,
    rule: Annotated[
        list[str] | None,
        typer.Option(help="With --canary: what ends it by itself, such as alpha=0.01, latency=2 or errors=null."),
    ] = None,
    no_rules: Annotated[bool, typer.Option("--no-rules", help="With --canary: nothing ends it by itself.")] = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Switch the service to this encoder. Searches never stop.

    Example: adiabat encoders activate bees

    Example: adiabat encoders activate bees --canary 10 --sticky-by X-User-Id
    """
    rules = False if no_rules else rules_of(rule or [])
    with connect(url, api_key) as client:
        if canary is not None:
            started = client.start_canary(
                key,
                canary,
                sticky_by=sticky_by,
                interleave=interleave,
                rules=rules,
                force=force,
                if_generation=if_generation,
            )
            _print_switch(started, as_json)
            return
        _print_switch(client.activate(key, force=force, if_generation=if_generation), as_json)


@cli.command()
def rollback(
    if_generation: Annotated[int | None, typer.Option(help="Only if this generation is still active.")] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Go back to the encoder that was active before.

    Example: adiabat encoders rollback
    """
    with connect(url, api_key) as client:
        _print_switch(client.rollback(if_generation=if_generation), as_json)


@cli.command()
def history(url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Every generation, newest first.

    Example: adiabat encoders history
    """
    with connect(url, api_key) as client:
        found = client.history()
    if as_json:
        print_json(found)
        return
    for item in found:
        beside = f" ({item.canary.percent:g}% {item.canary.encoder})" if item.canary else ""
        note = f": {item.note}" if item.note else ""
        say(f"{item.generation:>5}  {item.encoder:<32} {item.reason}{' (forced)' if item.forced else ''}{beside}{note}")


@cli.command()
def delete(
    key: Annotated[str, typer.Argument(metavar="NAME@VERSION")],
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Delete one version; refused while anything needs it.

    Example: adiabat encoders delete bees@1
    """
    with connect(url, api_key) as client:
        client.delete_encoder(key)
    if as_json:
        print_json({"deleted": key})
    else:
        say(f"{key} deleted")


def _print_switch(switched: SwitchedPublic, as_json: bool) -> None:
    if as_json:
        print_json(switched)
        return
    now, swap = switched.encoder, switched.swap
    say(
        f"{now.name}@{now.version} is active, generation {now.generation} "
        f"(load {swap.load_ms:.0f} ms, warm-up {swap.warmup_ms:.0f} ms, switch {swap.switch_us:.1f} µs)"
    )
    if beside := switched.canary:
        together = ", together with it" if beside.interleave else ""
        say(f"{beside.encoder} answers {beside.percent:g}% of the searches, by {beside.sticky_by}{together}")
    for each in switched.replicas.behind:
        say(f"not yet: {each.name} is at generation {each.generation}" + (f", {each.reason}" if each.reason else ""))
