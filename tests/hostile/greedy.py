"""A child as a hostile encoder would have it: `memory` takes all there is, `time` never ends and starts a helper."""

import json
import subprocess
import time
from pathlib import Path

from app.encoders.child import confine

if __name__ == "__main__":
    wanted = json.loads(confine())
    if wanted["kind"] == "memory":
        held = []
        while True:
            held.append(b"x" * 2**26)
    helper = subprocess.Popen(["sleep", "600"])
    Path(wanted["note"]).write_text(str(helper.pid))
    time.sleep(600)
