"""Write `app/client/synchronous.py` from `asynchronous.py`, so that the two can never differ.

python tools/unasync.py [--check]
"""

import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "app" / "client"
SOURCE = FOLDER / "asynchronous.py"
TARGET = FOLDER / "synchronous.py"
WORDS = (
    (r"AsyncAdiabatClient", "AdiabatClient"),
    (r"httpx\.AsyncClient", "httpx.Client"),
    (r"__aenter__", "__enter__"),
    (r"__aexit__", "__exit__"),
    (r"\baclose\b", "close"),
    (r"\baread\b", "read"),
    (r"\baiter_", "iter_"),
    (r"\basync_(\w+)", r"sync_\1"),
    (r"\bAsyncIterator\b", "Iterator"),
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\bawait ", ""),
)
HEAD = '"""The synchronous client. Made from `asynchronous.py` by `tools/unasync.py`: change that one.'


def synchronous(text: str) -> str:
    for pattern, word in WORDS:
        text = re.sub(pattern, word, text)
    _, _, rest = text.partition("\n")
    return _formatted(f"{HEAD}\n{rest}")


def _formatted(text: str) -> str:
    ruff = [sys.executable, "-m", "ruff"]
    for command in (["check", "--fix-only", "--quiet"], ["format", "--quiet"]):
        done = subprocess.run(
            [*ruff, *command, "--stdin-filename", str(TARGET), "-"],
            input=text,
            capture_output=True,
            text=True,
            check=True,
        )
        text = done.stdout
    return text


def main() -> None:
    made = synchronous(SOURCE.read_text())
    if "--check" in sys.argv:
        if TARGET.read_text() != made:
            sys.exit("app/client/synchronous.py is not what asynchronous.py makes; run: python tools/unasync.py")
        return
    TARGET.write_text(made)


if __name__ == "__main__":
    main()
