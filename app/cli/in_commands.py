"""The service speaks of its calls; who typed a command is told of the commands that make them."""

import re

CALL = re.compile(r"\b(GET|POST|PUT|DELETE) /([a-z-]+)(/[^\s;,)]*[^\s;,).])?")
NOT_OURS = frozenset({"no-such-route", "method-not-allowed"})  # whoever answered so knows other calls
COMMANDS = {
    "GET encoders": "encoders list",
    "POST encoders": "encoders register",
    "PUT active-encoder": "encoders activate",
    "POST active-encoder/rollback": "encoders rollback",
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
    "DELETE continuous-tuning": "continuous remove",
    "POST judgments": "judge",
    "GET keys": "keys list",
    "POST keys": "keys create",
    "GET passages": "passages",
    "POST passages": "ingest",
}


def in_commands(said: str, slug: str) -> str:
    """Calls that no command makes stay as they are."""

    def command(call: re.Match[str]) -> str:
        method, of, rest = call.groups(default="")
        end = "/rollback" if rest.endswith("/rollback") else "/" if rest else ""
        made = COMMANDS.get(f"{method} {of}{end}")
        return f"'adiabat {made}'" if made else call[0]

    return said if slug in NOT_OURS else CALL.sub(command, said)
