"""Settings that do nothing, or contradict each other or the machine."""

import os
from collections.abc import Iterator

from app.doctor.data import has_keys
from app.doctor.finding import Finding, fail, ok, warn
from app.settings import LOOPBACK_HOSTS, Settings, unknown


def settings_findings(settings: Settings) -> Iterator[Finding]:
    found = [*_unknown(), *_contradictions(settings)]
    yield from found or [ok("settings", "Every setting is known, and none contradicts another.")]


def _unknown() -> Iterator[Finding]:
    for said in unknown(os.environ):
        yield warn("settings", said, "docs/settings.md lists all of them.")


def _contradictions(settings: Settings) -> Iterator[Finding]:
    locked = settings.api_key is not None or has_keys(settings)
    if settings.host not in LOOPBACK_HOSTS and not locked:
        yield fail(
            "settings",
            f"ADIABAT_HOST={settings.host} opens the service to others and there is no key: it would not start.",
            "Set ADIABAT_API_KEY, for example to the output of 'openssl rand -hex 24', or make a key with "
            f"'adiabat keys create admin --scope admin --data-dir {settings.data_dir}'.",
        )
    if settings.qdrant_api_key is not None and settings.qdrant_url is None:
        yield warn(
            "settings",
            "ADIABAT_QDRANT_API_KEY is set and ADIABAT_QDRANT_URL is not: passages are stored in this process.",
            "Set ADIABAT_QDRANT_URL, or remove the key.",
        )
    if settings.qdrant_url is not None and (settings.passages_dir / "CURRENT").exists():
        yield warn(
            "settings",
            f"The passages in {settings.passages_dir} are not searched, since ADIABAT_QDRANT_URL is set.",
            "Ingest them into the server, or unset it.",
        )
    for folder in settings.source_dirs:
        if not folder.is_dir():
            yield warn("settings", f"ADIABAT_SOURCE_DIRS names {folder}, which is no folder.", "Make it, or remove it.")
    if settings.cors_origins and not locked:
        yield warn(
            "settings",
            f"ADIABAT_CORS_ORIGINS lets pages of {', '.join(settings.cors_origins)} read and write, without a key.",
            "Make keys: from the first one on every call needs one.",
        )
    if settings.open_metrics and not locked:
        yield warn("settings", "ADIABAT_OPEN_METRICS opens nothing: without a key every call is open.", "Remove it.")
