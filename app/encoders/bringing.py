"""What is to serve is brought into memory: what is not to be had is told, and marked where its files are broken."""

from dataclasses import dataclass
from functools import cached_property

from app.encoders.artifacts import BASE_KEY
from app.encoders.loaded import LoadedEncoder
from app.encoders.pool import EncoderPool
from app.encoders.slot import Slot
from app.errors import EncoderBroken
from app.registry import EncoderRecord, EncoderState, Registry, Route, Serving


@dataclass(frozen=True, kw_only=True, slots=True)
class Broken:
    """An encoder that could not be loaded, and the route that needs it, if it is one."""

    record: EncoderRecord
    route: Route | None
    error: Exception


@dataclass(frozen=True, kw_only=True, slots=True)
class Brought:
    """What is to serve at a generation: what of it is in memory, and what is not to be had."""

    loaded: list[LoadedEncoder]
    broken: list[Broken]

    def check(self) -> None:
        """Raises for what all searches need. A route that cannot be had holds up nothing else."""
        for each in self.broken:
            if each.route is None:
                raise each.error


class Bringer:
    """For the switcher alone."""

    def __init__(self, registry: Registry, pool: EncoderPool, slot: Slot) -> None:
        self._registry = registry
        self._pool = pool
        self._slot = slot

    @cached_property
    def base_id(self) -> int:
        return self._registry.encoders.find(BASE_KEY).id

    def bring(self, serving: Serving, but: str | None = None, timeout_s: float | None = None) -> Brought:
        """All that is to serve, but the route `but`; whatever is wrong with an encoder is told, not raised."""
        routes = [route for route in serving.routes if route.name != but]
        wanted: list[tuple[int, Route | None]] = [(serving.active.encoder_id, None)]
        wanted += [(serving.active.canary.encoder_id, None)] if serving.active.canary else []
        wanted += [(self.base_id, None)] if any(route.terms.base_languages for route in routes) else []
        wanted += [(route.terms.encoder_id, route) for route in routes]
        here = {each.record.id: each for each in self._slot.filled.in_use()} if self._slot.filled else {}
        brought = Brought(loaded=[], broken=[])
        for encoder_id, route in wanted:
            if encoder_id in here:
                continue
            record = self._registry.encoders.by_id(encoder_id)
            try:
                brought.loaded.append(self._pool.get(record, timeout_s))
            except Exception as error:  # whatever it is, something else serves
                brought.broken.append(Broken(record=record, route=route, error=error))
        return brought

    def load(self, record: EncoderRecord, timeout_s: float | None) -> LoadedEncoder:
        try:
            loaded = self._pool.get(record, timeout_s)
        except EncoderBroken:
            self.mark_broken(record)
            raise
        if record.state is EncoderState.BROKEN:  # restored from a backup meanwhile
            self._registry.encoders.set_state(record.id, EncoderState.READY)
        return loaded

    def mark_broken(self, record: EncoderRecord) -> None:
        if record.state is EncoderState.READY and record.key != BASE_KEY:
            self._registry.encoders.set_state(record.id, EncoderState.BROKEN)

    def stay(self) -> None:
        """They may have left between load and swap; the slot has them, so they come back at once."""
        for each in self._slot.current.in_use():
            self._pool.get(each.record)
