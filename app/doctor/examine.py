"""All checks, in the order in which a service needs what they look at."""

from collections.abc import Callable, Iterable, Iterator

from app.doctor import collection, configuration, data, machine
from app.doctor.finding import Finding, fail
from app.errors import AdiabatError
from app.settings import Settings

Check = Callable[[Settings], Finding | Iterable[Finding]]

CHECKS: dict[str, Check] = {
    "engine": machine.engine,
    "cpu": machine.processor,
    "settings": configuration.settings_findings,
    "data": data.folder,
    "lock": data.lock,
    "disk": data.disk,
    "artifacts": data.artifacts,
    "registry": data.registry,
    "model": collection.model,
    "store": collection.store,
}


def examine_machine() -> Iterator[Finding]:
    yield machine.python()
    yield machine.torch_build()


def examine(settings: Settings) -> Iterator[Finding]:
    for name, check in CHECKS.items():
        try:
            found = check(settings)
            yield from [found] if isinstance(found, Finding) else found
        except AdiabatError as error:
            yield fail(name, error.detail, "Mend what the sentence names, or restore the data folder from a backup.")
        except Exception as error:  # a damaged folder must not end the examination
            yield fail(name, f"This could not be looked at ({type(error).__name__}: {error}).", "See the sentence.")
