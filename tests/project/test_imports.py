"""What processes must never import: it would cost seconds at start and hundreds of MB."""

import subprocess
import sys

HEAVY = ("torch", "transformers", "sentence_transformers", "onnx", "huggingface_hub", "qdrant_client", "alembic")
# httpx is imported when a client is made, asyncio by who makes such a one, pydantic for the first answer.
CLIENT = """
import sys
before = set(sys.modules)
import app.client
new = set(sys.modules) - before
print(sorted({name.partition(".")[0] for name in new if name[0] != "_"} - sys.stdlib_module_names))
print([name for name in ("asyncio", "ssl") if name in new])
print(sorted(name for name in new if name.startswith("app.") and not name.startswith("app.client")))
print(app.wire.search.SearchResponse.__name__, "app.wire.encoders" in sys.modules, hasattr(app.wire, "nothing"))
from app.wire.common import PublicModel
models = PublicModel.__subclasses__()
print(len(models) > 10, [model.__name__ for model in models if model.__pydantic_complete__])
"""


def printed(code: str) -> list[str]:
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return ran.stdout.splitlines()


def test_the_serving_process_imports_nothing_heavy() -> None:
    code = (
        f"import sys, app.serve, app.cli, app.passages.edge; print([name for name in {HEAVY} if name in sys.modules])"
    )
    assert printed(code) == ["[]"]


def test_nobody_who_asked_for_no_spans_imports_what_sends_them() -> None:
    code = """
import sys, app.serve, app.cli
from app.assembly import _traces
from app.settings import Settings
senders = ("opentelemetry.sdk", "opentelemetry.exporter")
print(_traces(Settings()), [name for name in sys.modules if name.startswith(senders)])
"""
    assert printed(code) == ["None []"]


def test_the_client_imports_one_package_and_builds_no_model_before_it_is_used() -> None:
    assert printed(CLIENT) == [
        "['app', 'orjson']",
        "[]",
        "['app.addresses', 'app.wire']",
        "SearchResponse False False",
        "True []",
    ]
