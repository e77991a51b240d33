"""`adiabat keys …`: create, list, revoke; over HTTP, or in the data folder on the service's own machine."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from getpass import getuser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import ValidationError
from rich.table import Table

from app.cli.common import ApiKey, AsJson, Url, connect, console, errors, print_json, say
from app.client import DEFAULT_URL
from app.errors import BadInput
from app.wire import findings
from app.wire.keys import KeyCreate, KeyMade, KeyPublic

if TYPE_CHECKING:  # the database takes half a second to import; --help must not
    from app.registry import Keys

cli = typer.Typer(
    help="Keys with scopes and limits: who may call the service.\n\nExample: adiabat keys create shop --scope search",
    no_args_is_help=True,
)

UNITS_S = {"m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}

Name = Annotated[str, typer.Argument(help="The key's name, as the audit log and `keys list` show it.")]
DataDir = Annotated[
    Path | None,
    typer.Option(help="The service's data folder on this machine: needs no key. So the first one is made."),
]


@cli.command()
def create(
    name: Name,
    scope: Annotated[
        Literal["search", "write", "admin"], typer.Option(help="Each may do what the ones before it may.")
    ] = "search",
    rate: Annotated[float | None, typer.Option(help="Requests a second, to each process of the service.")] = None,
    burst: Annotated[int | None, typer.Option(help="With --rate: how many at once, if not one second's.")] = None,
    daily: Annotated[int | None, typer.Option(help="Requests of a day, in UTC.")] = None,
    expires: Annotated[
        str | None, typer.Option(help="When it ends: 12h, 90d, 2w from now, or 2027-01-31 or 2027-01-31T18:00.")
    ] = None,
    data_dir: DataDir = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Make a key. Standard output is the secret alone; it is shown this once and kept nowhere.

    Example: adiabat keys create shop --scope search --rate 50 --expires 90d

    Example: adiabat keys create admin --scope admin --data-dir ./adiabat-data
    """
    limits: dict[str, Any] = {"rate_per_s": rate, "burst": burst, "daily": daily}
    limits["expires_at"] = None if expires is None else _moment(expires)
    if data_dir is not None:
        made = _create_here(data_dir, {"name": name, "scope": scope, **limits})
    else:
        with connect(url, api_key) as client:
            made = client.create_key(name, scope=scope, **limits)
    if as_json:
        print_json(made)
        return
    errors.print(f"{made.name}: scope {made.scope}{_limits(made)}. This is shown once:", soft_wrap=True)
    say(made.key)


@cli.command("list")
def list_keys(url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """All keys with their scopes, limits and use; no secrets.

    Example: adiabat keys list
    """
    with connect(url, api_key) as client:
        found = client.keys()
    if as_json:
        print_json(found)
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("key", "scope", "limits", "today", "last used"):
        table.add_column(heading, justify="right" if heading == "today" else "left")
    for each in found:
        used = _clock(each.used_at) if each.used_at else "never"
        table.add_row(each.name, each.scope, _limits(each).strip(", "), str(each.used_today), used)
    console.print(table)


@cli.command()
def revoke(
    name: Name, data_dir: DataDir = None, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False
) -> None:
    """End a key, and every session of the console that was opened with it: at once, in other processes within a second.

    Example: adiabat keys revoke shop
    """
    if data_dir is not None:
        with _keys_in(data_dir) as keys:
            keys.revoke(name, needs_admin=False)
    else:
        with connect(url, api_key) as client:
            client.revoke_key(name)
    if as_json:
        print_json({"revoked": name})
    else:
        say(f"{name} revoked")


def _create_here(data_dir: Path, wanted: dict[str, Any]) -> KeyMade:
    """Who may write in the folder may do anything to the service: no key is asked for, and no last admin guarded."""
    from app.keys.making import make_key

    try:
        body = KeyCreate.model_validate(wanted)
    except ValidationError as error:
        raise BadInput(findings.of_line(error)) from None
    with _keys_in(data_dir) as keys:
        return make_key(keys, body, needs_admin=False)


@contextmanager
def _keys_in(data_dir: Path) -> "Iterator[Keys]":
    from app.registry import Actor, Registry, acting
    from app.settings import Settings

    settings = Settings(data_dir=data_dir)
    if settings.registry_url is None and not settings.registry_path.exists():
        errors.print(f"{data_dir} is new: no service has run on it yet.", soft_wrap=True)
    registry = Registry(settings.registry_at)
    try:
        with acting(Actor(peer=f"this machine, {getuser()}")):
            yield registry.keys
    finally:
        registry.close()


def _moment(said: str) -> float:
    if found := re.fullmatch(r"(\d{1,6})([mhdw])", said):
        return time.time() + int(found[1]) * UNITS_S[found[2]]
    try:
        return datetime.fromisoformat(said).timestamp()  # of this machine's time zone where it names none
    except ValueError as error:
        raise typer.BadParameter(f"--expires {said} is neither like 90d nor like 2027-01-31") from error


def _limits(key: KeyPublic) -> str:
    told = []
    if key.rate_per_s is not None:
        told.append(f"{key.rate_per_s:g}/s" + (f" (burst {key.burst})" if key.burst else ""))
    if key.daily is not None:
        told.append(f"{key.daily} a day")
    if key.expires_at is not None:
        told.append(("ended " if key.expired else "until ") + _clock(key.expires_at))
    return "".join(f", {each}" for each in told)


def _clock(at: float) -> str:
    return f"{datetime.fromtimestamp(at):%Y-%m-%d %H:%M}"
