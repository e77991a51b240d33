"""Tells a webhook what the service did by itself. Off until `ADIABAT_WEBHOOK_URL` is set; nothing waits for it.

Signed as Standard Webhooks 1.0 says (standardwebhooks.com): `webhook-signature` is `v1,` and the base64 of HMAC-SHA256
over `ID.TIMESTAMP.BODY`. It goes to the configured address and nowhere else: no redirect is followed, no proxy of the
environment asked, and nothing of the answer but its status is read.
"""

import base64
import hashlib
import hmac
import logging
import queue
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import httpx
import orjson

log = logging.getLogger("adiabat.webhook")

TIMEOUT_S = 5.0
WAITS_S = (1.0, 5.0, 30.0, 120.0, 600.0)  # before another try
MAX_WAITING = 100
ENCODED = "whsec_"


class Webhook:
    """`told` hears how each message ended: "sent" or "failed"."""

    def __init__(self, url: str | None, secret: str | None, told: Callable[[str], None]) -> None:
        self._url = url
        self._secret = key_of(secret or "")
        self._told = told
        self._waiting: queue.Queue[bytes] = queue.Queue(MAX_WAITING)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhook", daemon=True)

    def start(self) -> None:
        if self._url is not None:
            self._thread.start()

    def stop(self) -> None:
        """What waits is given up: a webhook that hangs keeps no service from ending."""
        self._stop.set()

    def send(self, kind: str, **data: Any) -> None:
        """Never waits; over `MAX_WAITING` the message is dropped and counted."""
        if self._url is None:
            return
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        try:
            self._waiting.put_nowait(orjson.dumps({"type": kind, "timestamp": at, "data": data}))
        except queue.Full:
            log.error("The webhook is too far behind; it was not told: %s", kind)
            self._told("failed")

    def _run(self) -> None:
        with httpx.Client(timeout=TIMEOUT_S, follow_redirects=False, trust_env=False) as client:
            while not self._stop.is_set():
                try:
                    body = self._waiting.get(timeout=1)
                except queue.Empty:
                    continue
                self._deliver(client, body)

    def _deliver(self, client: httpx.Client, body: bytes) -> None:
        id = f"msg_{uuid.uuid4().hex}"  # the same at every try: a receiver may know it already
        why = ""
        for wait_s in (0.0, *WAITS_S):
            if self._stop.wait(wait_s):
                return
            why = self._try(client, id, body)
            if not why:
                self._told("sent")
                return
            log.warning("The webhook did not take message %s: %s", id, why)
        log.error("Message %s to the webhook is given up: %s", id, why)
        self._told("failed")

    def _try(self, client: httpx.Client, id: str, body: bytes) -> str:
        """Why it was not taken; empty: it was."""
        at = str(int(time.time()))
        headers = {
            "content-type": "application/json",
            "webhook-id": id,
            "webhook-timestamp": at,
            "webhook-signature": sign(self._secret, id, at, body),
        }
        try:
            with client.stream("POST", self._url or "", content=body, headers=headers) as answer:
                return "" if answer.is_success else f"status {answer.status_code}"
        except Exception as error:  # whatever it is, the messages behind this one must come to their turn
            return f"{type(error).__name__}: {error}"


def key_of(secret: str) -> bytes:
    """A secret as it is, or one in base64 after `whsec_`. Raises `ValueError`."""
    if secret.startswith(ENCODED):
        return base64.b64decode(secret.removeprefix(ENCODED), validate=True)
    return secret.encode()


def sign(key: bytes, id: str, at: str, body: bytes) -> str:
    mac = hmac.new(key, f"{id}.{at}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(mac.digest()).decode()}"
