"""A running service, asked over HTTP."""

from collections.abc import Iterator

from app import __version__
from app.client import AdiabatClient, ApiError, Unreachable
from app.doctor.finding import Finding, fail, ok, warn

TIMEOUT_S = 10
KEY_REFUSED = 401


def service(url: str, api_key: str | None) -> Iterator[Finding]:
    with AdiabatClient(url, api_key, timeout_s=TIMEOUT_S, retries=0) as client:
        try:
            yield from _asked(client)
        except Unreachable as error:
            yield fail("service", str(error), "Start it with 'adiabat serve', or correct --url.")
        except ApiError as error:
            mend = "Give its key with --api-key or ADIABAT_API_KEY." if error.status == KEY_REFUSED else "See its log."
            yield fail("service", f"The service at {url} refused: {error.detail}", mend)


def _asked(client: AdiabatClient) -> Iterator[Finding]:
    release = client.version()
    ready = client.ready()
    active = client.active_encoder().encoder  # needs the key, where there is one
    yield ok(
        "service",
        f"{client.url} is {ready.status}: {ready.passages} passages, {active.name}@{active.version}, "
        f"generation {active.generation}.",
    )
    if release != __version__:
        yield warn("service", f"It is release {release}, these commands are {__version__}.", "Use the same release.")
    if not ready.trainer.startswith("alive"):
        yield warn(
            "trainer",
            f"Of trainers the service says: {ready.trainer}.",
            "Tuning jobs wait: start one with 'python -m trainer'.",
        )
    for note in ready.notes:
        yield warn("service", note, "See the service's log.")
