"""`adiabat` whose service loads an encoder slowly, or not at all, as long as a file says so.

`ADIABAT_TEST_HINDRANCE` names a folder: while `slow` is in it every load waits, while `broken` is in it each one fails.
`ADIABAT_TEST_CLOSE_S` is how long a stop waits for what hangs.
"""

import os
import time
from pathlib import Path
from typing import Any

import app.assembly
import app.serve
from app.cli import main
from app.encoders.loaded import LoadedEncoder
from app.errors import EncoderBroken

HINDRANCE = "ADIABAT_TEST_HINDRANCE"
SLOW = "slow"
BROKEN = "broken"
CLOSE = "ADIABAT_TEST_CLOSE_S"

load = app.assembly.load_encoder


def hindered(*given: Any) -> LoadedEncoder:
    folder = Path(os.environ[HINDRANCE])
    while (folder / SLOW).exists():
        time.sleep(0.01)
    if (folder / BROKEN).exists():
        raise EncoderBroken("its artifact cannot be loaded: the disk of this replica is gone.")
    return load(*given)


if __name__ == "__main__":
    app.assembly.load_encoder = hindered
    app.serve.CLOSE_S = float(os.environ.get(CLOSE, app.serve.CLOSE_S))
    main()
