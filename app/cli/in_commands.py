"""The service speaks of its calls; who typed a command is told of the commands that make them."""

import re

CALL = re.compile(r"\b(GET|POST|PUT|DELETE) /([a-z-]+)(/[A-Za-z0-9._@{}-]+)?(/rollback)?\b")
COMMANDS = {
    "GET encoders": "encoders list",
    "POST encoders": "encoders register",
    "GET active-encoder": "encoders list",
    "PUT active-encoder": "encoders activate",
    "GET routes": "routes list",
    "GET routes/": "routes show",
    "PUT routes/": "routes set",
    "POST routes/rollback": "routes rollback",
    "GET datasets": "datasets list",
    "PUT datasets/": "datasets put",
    "GET tuning-jobs": "jobs list",
    "POST tuning-jobs": "tune",
    "GET experiments": "experiments list",
    "PUT continuous-tuning": "continuous set",
    "POST judgments": "judge",
    "GET keys": "keys list",
    "POST keys": "keys create",
    "POST passages": "ingest",
}


def in_commands(said: str) -> str:
    """Calls that no command makes stay as they are."""

    def command(call: re.Match[str]) -> str:
        method, of, name, rollback = call.groups()
        made = COMMANDS.get(f"{method} {of}{'/' if name else ''}{(rollback or '').removeprefix('/')}")
        return f"'adiabat {made}'" if made else call[0]

    return CALL.sub(command, said)
