"""What the console's sessions are signed with: made of ADIABAT_API_KEY, which every replica has; else kept in a file.

Never in the registry: who has read that, say in a backup, must not be able to make sessions of it.
"""

import hmac
import os
import secrets
from hashlib import sha256

from app.settings import Settings

FILE = "session.secret"


def session_secret(settings: Settings) -> bytes:
    """The same until the key changes, which ends all sessions."""
    if settings.api_key is not None:
        return hmac.new(settings.api_key.encode(), b"adiabat sessions", sha256).digest()
    path = settings.data_dir / FILE
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return bytes.fromhex(path.read_text())
    with os.fdopen(descriptor, "w") as file:
        made = secrets.token_bytes(32)
        file.write(made.hex())
    return made
