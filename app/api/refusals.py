"""Attempts to change something that were refused, for the audit log: few enough that a flood cannot fill the disk.

Who shows a key and who shows none have an allowance each, so that strangers cannot hide what a key tries; what was left
out is counted in the next entry. Nobody waits for the writing.
"""

import logging
from concurrent.futures import ThreadPoolExecutor

from starlette.types import Scope

from app.api.session import SAFE_METHODS
from app.keys import TokenBucket
from app.observe.logs import noted
from app.registry import Action, Actor, Audit, acting

log = logging.getLogger("adiabat.audit")

AT_ONCE, PER_S = 50, 1 / 60  # 1,440 a day for each of the two, some 300 KB, whatever comes
STATUSES = frozenset({401, 403, 409, 412})
# Methods that write, and change nothing that anybody answers for.
READING = frozenset({"/search", "/search/batch", "/v1/embeddings", "/feedback"})


class _Allowance:
    def __init__(self) -> None:
        self.bucket = TokenBucket(PER_S, AT_ONCE)
        self.left_out = 0


class Refusals:
    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._known, self._unknown = _Allowance(), _Allowance()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="refusals")

    def tell(self, scope: Scope, actor: Actor, status: int) -> None:
        """Of a request that was answered with `status`; what is none of our business is left alone."""
        if status not in STATUSES or scope["method"] in SAFE_METHODS or scope["path"] in READING:
            return
        allowance = self._known if actor.key is not None else self._unknown
        if allowance.bucket.take() > 0:
            allowance.left_out += 1
            return
        more = {"left_out": allowance.left_out} if allowance.left_out else {}
        allowance.left_out = 0
        target, outcome = f"{scope['method']} {scope['path']}", noted("refusal") or str(status)
        self._thread.submit(self._write, actor, target, outcome, more)

    def close(self) -> None:
        self._thread.shutdown()

    def _write(self, actor: Actor, target: str, outcome: str, more: dict[str, int]) -> None:
        try:
            with acting(actor):
                self._audit.write(Action.REFUSED, target, outcome=outcome, **more)
        except Exception as error:  # the refusal stands whether it is written down or not
            log.warning("the refusal of %s could not be written down: %s", target, error)
