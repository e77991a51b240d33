"""`adiabat backup`, `adiabat restore` and `adiabat verify`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.common import ApiKey, AsJson, Bar, Url, print_json, progress_bar, say
from app.cli.doctor import show
from app.cli.serving import read_settings
from app.client import DEFAULT_URL, AdiabatClient
from app.doctor.finding import Finding, Level
from app.errors import BadInput, Conflict

if TYPE_CHECKING:  # the parts take a second to import; --help must not
    from app.backup.archive import About

BACKUP_S = 3600  # of a store of many gigabytes the copy takes its time before the first byte comes
MB = 1_000_000

File = Annotated[Path, typer.Argument(metavar="FILE", help="What `adiabat backup` wrote.")]


def install(cli: typer.Typer) -> None:
    cli.command()(backup)
    cli.command()(restore)
    cli.command()(verify)


def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it; must not exist.")],
    data_dir: Annotated[
        Path | None, typer.Option(help="A data folder on this machine that no service runs on: needs no key.")
    ] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Write registry, encoders, datasets and passages, as they are at one moment, to a file on this machine.

    The running service goes on answering; it asks for an admin's key where it has keys. The file is readable for its
    owner alone, and holds what the data folder holds: keep it as secret.

    Example: adiabat backup /backups/adiabat-$(date +%F).tar

    Example: adiabat backup before-upgrade.tar --data-dir ./adiabat-data
    """
    from app.backup.archive import opened

    with _new_file(file) as part, progress_bar(f"writing {file.name}") as bar:
        if data_dir is not None:
            _write_here(part, data_dir, bar)
        else:
            with AdiabatClient(url, api_key, timeout_s=BACKUP_S) as client:
                client.backup(part, _in_mb(bar))
        with opened(part) as contents:  # as it lies on the disk
            for name in contents.damaged():
                raise BadInput(f"{name} did not arrive as it was sent; repeat the command.")
            about = contents.about
    _say(about, file, as_json, "in")
    for name in about.missing:
        if not as_json:
            say(f"note: {name} is in the registry and not in the data folder, and so not in the backup")


def restore(
    file: File,
    data_dir: Annotated[
        Path | None, typer.Option(help="The new data folder: empty, or not there yet; ADIABAT_DATA_DIR.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a data folder out of a backup. All of it is put in place, or nothing.

    Then start the service on it: it has the passages, encoders, history, generation, datasets, judgments and keys of
    that moment.

    Example: adiabat restore /backups/adiabat-2026-11-26.tar --data-dir ./adiabat-data
    """
    from app.backup.restoring import restore as put_back

    settings = read_settings({} if data_dir is None else {"data_dir": data_dir})
    if settings.registry_url is not None or settings.qdrant_url is not None:
        raise Conflict(
            "A backup is restored into a data folder: unset ADIABAT_REGISTRY_URL and ADIABAT_QDRANT_URL, restore, and "
            "bring what is there to the servers with 'adiabat registry copy' and 'adiabat store copy'."
        )
    with progress_bar(f"restoring {file.name}") as bar:
        about = put_back(file, settings.data_dir, _in_mb(bar))
    _say(about, settings.data_dir, as_json, "restored to")
    if not as_json:
        say(f"start the service: adiabat serve --data-dir {settings.data_dir}")


def verify(
    what: Annotated[
        Path | None, typer.Argument(metavar="[FILE|FOLDER]", help="A backup or a data folder; ADIABAT_DATA_DIR.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Read a backup, or a data folder that no service runs on, in full, and say per part what is right or wrong.

    Checksums; the registry's pages and references; every encoder's digest; every dataset's; every passage's text,
    metadata and vector; and some passages are embedded again. Exits with 1 where something is wrong. A backup is
    unpacked below TMPDIR for it.

    Example: adiabat verify /backups/adiabat-2026-11-26.tar

    Example: adiabat verify ./adiabat-data
    """
    from app.backup.verifying import verify_archive, verify_folder

    settings = read_settings({"data_dir": what} if what is not None and not what.is_file() else {})
    subject = settings.data_dir if what is None else what
    found: list[Finding] = []
    with progress_bar(f"reading {subject.name}") as bar:
        looked_at = verify_archive(subject, settings, _in_mb(bar)) if subject.is_file() else verify_folder(settings)
        for finding in looked_at:
            found.append(finding)
            if not as_json:
                show(finding)
    wrong = [finding for finding in found if finding.level is Level.FAIL]
    if as_json:
        print_json({"findings": found, "failed": len(wrong)})
    if wrong:
        raise BadInput(f"{subject} is damaged: {wrong[0].said}")
    if not as_json:
        say(f"{subject} is whole")


@contextmanager
def _new_file(file: Path) -> Iterator[Path]:
    """What is written beside it becomes `file` when the block ends, and is removed where it fails."""
    if file.exists():
        raise BadInput(f"{file} exists, and a backup never replaces one; name another file.")
    part = file.with_name(f".{file.name}.part")
    part.unlink(missing_ok=True)
    part.touch(mode=0o600)
    try:
        yield part
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.rename(file)
    finally:
        part.unlink(missing_ok=True)


def _write_here(part: Path, data_dir: Path, bar: Bar) -> None:
    from app.backup.archive import pack
    from app.backup.taking import taken_without_service

    with taken_without_service(read_settings({"data_dir": data_dir})) as folder, part.open("wb") as file:
        packed = pack(folder)
        for chunk in packed.chunks:
            file.write(chunk)
            _in_mb(bar)(file.tell(), packed.size)


def _in_mb(bar: Bar) -> Any:
    return lambda done, total: bar.update(done // MB, "MB", total=max(1, total // MB))


def _say(about: "About", where: Path, as_json: bool, how: str) -> None:
    size = where.stat().st_size if where.is_file() else None
    if as_json:
        print_json({"path": str(where.resolve()), "size_bytes": size, **_dict(about)})
        return
    at = f"{datetime.fromtimestamp(about.created_at):%Y-%m-%d %H:%M:%S}"
    told = f", {size / MB:.0f} MB" if size else ""
    say(
        f"{about.passages} passages, {about.encoders} encoders, {about.encoder} active as generation "
        f"{about.generation}, of {at}: {how} {where}{told}"
    )


def _dict(about: "About") -> dict[str, Any]:
    return {name: getattr(about, name) for name in about.__slots__}
