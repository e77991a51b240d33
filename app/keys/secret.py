"""What the console's sessions are signed with: made of ADIABAT_API_KEY, which every replica has; else kept in a file.

Never in the registry: who has read that, say in a backup, must not be able to make sessions of it.
"""

import hmac
import os
import secrets
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from app.settings import Settings

FILE = "session.secret"
SECRET_BYTES = 32


def session_secret(settings: Settings) -> bytes:
    """The same until the key changes, which ends all sessions."""
    if settings.api_key is not None:
        return hmac.new(settings.api_key.encode(), b"adiabat sessions", sha256).digest()
    path = settings.data_dir / FILE
    while (found := _kept(path)) is None:
        _keep(path, secrets.token_bytes(SECRET_BYTES))
    return found


def _kept(path: Path) -> bytes | None:
    """None where there is none, and where a power failure left less than one: anybody could sign with that."""
    try:
        found = bytes.fromhex(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        found = b""
    if len(found) == SECRET_BYTES:
        return found
    path.unlink(missing_ok=True)
    return None


def _keep(path: Path, secret: bytes) -> None:
    """Whole and durable before it has its name; another service may have been faster, and then theirs stays."""
    draft = path.with_name(f".{FILE}-{secrets.token_hex(8)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secret.hex())
        file.flush()
        os.fsync(file.fileno())
    with suppress(FileExistsError):
        os.link(draft, path)
    draft.unlink()
