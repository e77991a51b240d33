"""A route in the slot: which searches it takes, and who answers them."""

from dataclasses import dataclass

from app.encoders.loaded import LoadedEncoder
from app.errors import RouteNotFound
from app.registry.routes import MatchFilter, Route


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What of a search a route may look at."""

    route: str | None = None  # that it names
    lang: str | None = None
    key: str | None = None  # the name of the API key
    demands: tuple[MatchFilter, ...] = ()  # values that its filter demands of every hit

    @property
    def language(self) -> str | None:
        return self.lang and primary_subtag(self.lang)


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedRoute:
    route: Route
    encoder: LoadedEncoder
    base: LoadedEncoder | None  # where languages stay on it

    def takes(self, asked: Asked) -> bool:
        """Without being named: all that it says of a search holds."""
        match = self.route.terms.match
        if match is None:
            return False
        return (
            (not match.lang or asked.language in match.lang)
            and (not match.key or asked.key in match.key)
            and (match.filter is None or any(_same(match.filter, each) for each in asked.demands))
        )

    def stays_on_base(self, asked: Asked) -> bool:
        return asked.language in self.route.terms.base_languages


def primary_subtag(lang: str) -> str:
    """Of "de-AT" "de"."""
    return lang.replace("_", "-").partition("-")[0].lower()


def find_route(routes: tuple[LoadedRoute, ...], asked: Asked) -> LoadedRoute | None:
    """The one that is named, or the first by name that takes the search. Raises `RouteNotFound`."""
    if asked.route is None:
        return next((each for each in routes if each.takes(asked)), None)
    named = next((each for each in routes if each.route.name == asked.route), None)
    if named is None:
        # Not which there are: their names may be customers', and whoever may search need not know them.
        raise RouteNotFound(
            f"No route {asked.route!r} is set; leave `route` out, or set it (PUT /routes/{asked.route})."
        )
    return named


def _same(one: MatchFilter, other: MatchFilter) -> bool:
    """To Python 1 and true are the same."""
    return one == other and type(one.value) is type(other.value)
