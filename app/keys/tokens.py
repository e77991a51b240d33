"""A key's token: `adiabat_ID_SECRET`. The id finds the row, the secret is 256 random bits, and scrypt of it is kept.

Nobody guesses 256 bits, so the cost of scrypt protects nothing here that a plain hash would not; it is chosen to stay
far below what a refusal may cost (4 MiB, some 10 ms), and paid once per key and process (`app.keys.ring`).
The id is random as well, 80 bits: who has never seen a token does not get as far as a hash.
"""

import hashlib
import hmac
import re
import secrets
from base64 import b64decode, b64encode
from dataclasses import dataclass

PREFIX = "adiabat"
COST, BLOCK, LANES = 2**12, 8, 1
SALT_BYTES = 16
MAX_MEMORY = 64 * 2**20
_TOKEN = re.compile(rf"{PREFIX}_([0-9a-f]{{20}})_([A-Za-z0-9_-]{{43}})")


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    id: str
    secret: str

    def __str__(self) -> str:
        return f"{PREFIX}_{self.id}_{self.secret}"


def make_token() -> Token:
    return Token(id=secrets.token_hex(10), secret=secrets.token_urlsafe(32))


def parse_token(text: str) -> Token | None:
    found = _TOKEN.fullmatch(text)
    return Token(id=found[1], secret=found[2]) if found else None


def hashed(secret: str) -> str:
    """`scrypt$COST$BLOCK$LANES$SALT$HASH`, so that the cost may change and old ones still verify."""
    salt = secrets.token_bytes(SALT_BYTES)
    found = _scrypt(secret, salt, COST, BLOCK, LANES)
    return "$".join(["scrypt", str(COST), str(BLOCK), str(LANES), b64encode(salt).decode(), b64encode(found).decode()])


def verifies(secret: str, kept: str) -> bool:
    """Whether `kept` was made of this secret. Takes its time: not for the event loop."""
    _, cost, block, lanes, salt, expected = kept.split("$")
    found = _scrypt(secret, b64decode(salt), int(cost), int(block), int(lanes))
    return hmac.compare_digest(found, b64decode(expected))


def _scrypt(secret: str, salt: bytes, cost: int, block: int, lanes: int) -> bytes:
    return hashlib.scrypt(secret.encode(), salt=salt, n=cost, r=block, p=lanes, maxmem=MAX_MEMORY)
