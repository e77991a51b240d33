"""Folders in a bucket of S3-compatible storage, each there whole or not at all, and verified when it is fetched.

    objects/<area>/<sha256>    a file's content, under its digest; an area belongs to one name, and goes with it
    <name>.json                what a folder holds: its area and for each file path, SHA-256 and size. Written last

Credentials, region and endpoint are those of the environment: `AWS_ACCESS_KEY_ID`, `AWS_REGION`, `AWS_ENDPOINT_URL`, …
"""

import hashlib
import json
import os
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from app.errors import Conflict, Unavailable

OBJECTS, LOST = "objects", "lost"
# Two copies of a clock may differ, and an upload may take long: what nothing names is left alone for so long.
STALE_S = 24 * 3600.0
CHUNK = 8 * 2**20
AT_ONCE = 4
TIMEOUTS = {
    "connect_timeout": timedelta(seconds=3),
    "read_timeout": timedelta(seconds=10),  # without a byte
    "timeout": timedelta(hours=1),
}
RETRIES = {"max_retries": 3, "retry_timeout": timedelta(seconds=10)}
MAX_SAID_CHARS = 300
REFUSED = re.compile("401 Unauthorized|403 Forbidden|AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch")
NEEDS = "s3:ListBucket on the bucket and s3:GetObject, s3:PutObject, s3:DeleteObject below the prefix"


class Damaged(Exception):
    """An object is not what was written, or it is gone while something names it; the sentence names it."""


class Misconfigured(Unavailable):
    """The storage cannot be used as it is configured; waiting mends nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    path: str  # relative to the folder, with /
    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """What a folder holds. `writer` is the registry whose service put it there."""

    area: str
    files: tuple[Entry, ...]
    writer: str

    @staticmethod
    def read(said: bytes) -> "Content":
        """Raises `ValueError`, `TypeError` or `KeyError` for anything else."""
        fields = json.loads(said)
        files = tuple(
            Entry(path=str(each["path"]), sha256=str(each["sha256"]), size=int(each["size"]))
            for each in fields["files"]
        )
        return Content(area=str(fields["area"]), files=files, writer=str(fields["writer"]))


class Bucket:
    """Below `url`, `s3://BUCKET[/PREFIX]`. `writer` names this side's registry in what it writes.

    Every call raises `Unavailable` where the storage does not answer or refuses access.
    """

    def __init__(self, url: str, writer: str = "") -> None:
        """Nothing is asked yet. Raises `Unavailable` where the library is missing."""
        if find_spec("obstore") is None:
            raise Unavailable(
                "ADIABAT_ARTIFACTS_URL names S3-compatible storage and obstore is not installed: pip install "
                "'adiabat[s3]'."
            )
        import obstore  # an extra: whoever keeps artifacts in a folder has none
        from obstore.store import S3Store

        self.url = url.rstrip("/")
        self.writer = writer
        self._obstore = obstore
        bucket, _, prefix = self.url.removeprefix("s3://").partition("/")
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
        options: Any = TIMEOUTS | {"allow_http": endpoint.startswith("http://")}
        retries: Any = RETRIES
        with self._in_our_words():
            self._store = S3Store(bucket, prefix=prefix or None, client_options=options, retry_config=retries)

    def check(self) -> None:
        """That it may be listed, written, read and deleted from. Raises `Unavailable` with what to mend."""
        probe = f"check/{uuid.uuid4().hex}"
        self.names("check")
        with self._in_our_words():
            self._obstore.put(self._store, probe, b"adiabat")
            self._obstore.get(self._store, probe).bytes()
            self._obstore.delete(self._store, probe)

    def upload(self, folder: Path, paths: Iterable[Path], before: Content | None = None) -> Content:
        """Files of `folder`, which nobody sees until they are named. What `before` holds is not sent again."""
        area = before.area if before else uuid.uuid4().hex
        entries = tuple(_entry(path, folder) for path in sorted(paths))
        known = {each.sha256 for each in before.files} if before else set()
        self.send(folder, area, [each for each in entries if each.sha256 not in known])
        return Content(area=area, files=entries, writer=self.writer)

    def send(self, folder: Path, area: str, entries: Iterable[Entry]) -> None:
        def put(entry: Entry) -> None:
            with self._in_our_words():
                self._obstore.put(self._store, _object(area, entry), folder / entry.path)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(put, entries))

    def name(self, name: str, content: Content, *, new: bool = False) -> None:
        """Make it visible, in one write. With `new` raises `Conflict` where another registry's service has the name.

        What had the name and no row, since a crash left it or the registry was an older one, is kept under `lost/`.
        """
        said = json.dumps(asdict(content)).encode()
        with self._in_our_words():
            if not new:
                self._obstore.put(self._store, f"{name}.json", said)
                return
            try:
                self._obstore.put(self._store, f"{name}.json", said, mode="create")
            except self._obstore.exceptions.AlreadyExistsError:
                self._set_aside(name)
                self._obstore.put(self._store, f"{name}.json", said)

    def publish(self, name: str, folder: Path, paths: Iterable[Path] | None = None) -> None:
        """`folder`, or these of its files, as `name`, in place of what has the name."""
        before = self._readable(name)
        content = self.upload(folder, all_files(folder) if paths is None else paths, before)
        if content != before:
            self._exchange(name, content, before)

    def exchange(self, name: str, content: Content) -> None:
        """What was uploaded as `name`, in place of what has the name, be that damaged. It stays whose it was."""
        before = self._readable(name)
        self._exchange(name, replace(content, writer=before.writer) if before else content, before)

    def _readable(self, name: str) -> Content | None:
        with suppress(Damaged):
            return self.content(name)
        return None

    def _exchange(self, name: str, content: Content, before: Content | None) -> None:
        self.name(name, content)
        if before is not None:
            kept = {_object(content.area, each) for each in content.files}
            self._delete({_object(before.area, each) for each in before.files} - kept)

    def content(self, name: str) -> Content | None:
        """None where nothing has the name. Raises `Damaged`."""
        with self._in_our_words():
            try:
                said = bytes(self._obstore.get(self._store, f"{name}.json").bytes())
            except FileNotFoundError as error:
                _require_bucket(error)
                return None
        try:
            return Content.read(said)
        except (ValueError, TypeError, KeyError) as error:
            raise Damaged(f"The object {self.url}/{name}.json was changed or damaged ({error!r}).") from error

    def fetch(self, content: Content, folder: Path) -> None:
        """Its files into `folder`, which is made. Raises `Damaged` for one that is not what was written."""
        for entry in content.files:
            parts = Path(entry.path).parts
            if not parts or Path(entry.path).is_absolute() or ".." in parts or "\0" in entry.path:
                raise Damaged(f"The content of {self.url}/{OBJECTS}/{content.area} names a file {entry.path!r}.")
            (folder / entry.path).parent.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda entry: self._fetch_one(content.area, entry, folder), content.files))

    def remove(self, name: str, *, whosever: bool = False) -> None:
        """The name first: nobody sees half of it. What is not there is removed already.

        The objects of a damaged one are named by nothing from then on: a sweep takes them after a day. Raises
        `Conflict` where another registry's service has the name, unless it is to go `whosever` it is.
        """
        content = self._readable(name)
        if content is not None and content.writer != self.writer and not whosever:
            raise Conflict(f"{self._belongs(name, content)} If that was this one before it moved, remove the object.")
        self._delete([f"{name}.json"])
        if content is not None:
            self.discard(content)

    def discard(self, content: Content) -> None:
        """Content that nothing names."""
        self._delete({_object(content.area, each) for each in content.files})

    def names(self, kind: str) -> list[str]:
        """Every name below `kind`."""
        return [path.removesuffix(".json") for path, _ in self._list(kind) if path.endswith(".json")]

    def sweep(self, kinds: Iterable[str], needed: Callable[[], set[str]], finished: Callable[[str], bool]) -> list[str]:
        """Remove names that are `finished`, set aside old ones that are not `needed`, and remove what has no name.

        What is set aside keeps its content, under `lost/`: whoever finds no use for it may have the wrong registry.
        `needed` is asked once all names are listed. Another registry's are left alone. Returns what was touched.
        """
        before, areas, unread = time.time() - STALE_S, set(), False
        gone: list[str] = []
        objects = self._list(OBJECTS)  # first: what is named meanwhile is found named below
        listed = [each for kind in (LOST, *kinds) for each in self._list(kind)]
        wanted = needed()
        for path, modified in listed:
            name = path.removesuffix(".json")
            try:
                content = self.content(name)
            except Damaged:
                unread = True
                continue
            if content is None:
                continue
            areas.add(content.area)
            if name in wanted or name.startswith(f"{LOST}/") or content.writer != self.writer:
                continue
            if finished(name):
                self.remove(name)
            elif modified < before:
                self.name(f"{LOST}/{name}-{uuid.uuid4().hex[:12]}", content)
                self._delete([path])
            else:
                continue
            gone.append(name)
        by_area: dict[str, list[tuple[str, float]]] = {}
        # Whoever cannot read all names must not say that an area has none.
        for path, modified in () if unread else objects:
            by_area.setdefault(path.split("/")[1], []).append((path, modified))
        for area in by_area.keys() - areas:
            if max(modified for _, modified in by_area[area]) < before:
                self._delete(path for path, _ in by_area[area])
                gone.append(f"{OBJECTS}/{area}")
        return gone

    def _fetch_one(self, area: str, entry: Entry, folder: Path) -> None:
        found, path = hashlib.sha256(), _object(area, entry)
        with self._in_our_words(), (folder / entry.path).open("wb") as file:
            try:
                for chunk in self._obstore.get(self._store, path).stream(min_chunk_size=CHUNK):
                    found.update(chunk)
                    file.write(chunk)
            except FileNotFoundError as error:
                _require_bucket(error)
                raise Damaged(f"The object {self.url}/{path}, {entry.path}, is gone.") from error
        if found.hexdigest() != entry.sha256:
            raise Damaged(
                f"The object {self.url}/{path}, {entry.path}, has SHA-256 {found.hexdigest()}: it is not what was "
                "written there."
            )

    def _set_aside(self, name: str) -> None:
        """Raises `Conflict` where it is not ours."""
        try:
            content = self.content(name)
        except Damaged as error:
            raise Conflict(
                f"{error} No encoder of this registry has the name: remove it, and repeat the call."
            ) from error
        if content is not None and content.writer != self.writer:
            raise Conflict(
                f"{self._belongs(name, content)} If that was this one before it moved, remove the object, and repeat "
                "the call."
            )
        if content is not None:
            self.name(f"{LOST}/{name}-{uuid.uuid4().hex[:12]}", content)

    def _belongs(self, name: str, content: Content) -> str:
        return (
            f"{self.url}/{name}.json was put there by a service on another registry, {content.writer}: give each "
            "registry an ADIABAT_ARTIFACTS_URL of its own."
        )

    def _list(self, under: str) -> list[tuple[str, float]]:
        """Paths with the time they were written (s since 1970, by the storage's clock)."""
        with self._in_our_words():
            pages = self._obstore.list(self._store, prefix=under)
            return [(each["path"], each["last_modified"].timestamp()) for page in pages for each in page]

    def _delete(self, paths: Iterable[str]) -> None:
        if wanted := list(paths):
            with self._in_our_words(), suppress(FileNotFoundError):
                self._obstore.delete(self._store, wanted)

    @contextmanager
    def _in_our_words(self) -> Iterator[None]:
        try:
            yield
        except (self._obstore.exceptions.BaseError, FileNotFoundError, ValueError) as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> Unavailable:
        """A listing that is refused is told apart by its text alone."""
        said = _short(error)
        if REFUSED.search(str(error)):
            return Misconfigured(
                f"The artifact store {self.url} refuses access ({said}): check AWS_ACCESS_KEY_ID and "
                f"AWS_SECRET_ACCESS_KEY, or the role; they must be allowed {NEEDS}."
            )
        if "NoSuchBucket" in str(error):
            return Misconfigured(
                f"The artifact store {self.url} names a bucket that does not exist; make it, or correct the name."
            )
        if "/latest/" in str(error) or "Credential" in str(error):  # the address of a machine's role
            return Misconfigured(
                f"There are no credentials for the artifact store {self.url}: set AWS_ACCESS_KEY_ID and "
                f"AWS_SECRET_ACCESS_KEY, or give the machine a role ({said})."
            )
        return Unavailable(
            f"The artifact store {self.url} does not answer ({said}): check AWS_ENDPOINT_URL, and that it runs; "
            "searches go on with what is here."
        )


def all_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _entry(path: Path, folder: Path) -> Entry:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Entry(path=path.relative_to(folder).as_posix(), sha256=digest, size=path.stat().st_size)


def _object(area: str, entry: Entry) -> str:
    return f"{OBJECTS}/{area}/{entry.sha256}"


def _require_bucket(error: FileNotFoundError) -> None:
    if "NoSuchBucket" in str(error):
        raise error


def _short(error: Exception) -> str:
    """The library tells its inner state over many lines, after the first one or two."""
    said = " ".join(str(error).partition("Debug source")[0].split())
    return said if len(said) <= MAX_SAID_CHARS else f"{said[:MAX_SAID_CHARS]}…"
