"""What processes must never import: it would cost seconds at start and hundreds of MB."""

import subprocess
import sys

HEAVY = ("torch", "transformers", "sentence_transformers", "onnx", "huggingface_hub", "qdrant_client", "alembic")
# What the client imports, and what those import; httpx only when one is made, and asyncio by who makes such a one.
OF_THE_CLIENT = {"app", "orjson", "pydantic"} | {
    *("annotated_types", "pydantic_core", "typing_extensions", "typing_inspection"),
}
CLIENT = f"""
import sys
before = set(sys.modules)
import app.client
new = set(sys.modules) - before
print(sorted({{name.partition(".")[0] for name in new if name[0] != "_"}} - sys.stdlib_module_names - {OF_THE_CLIENT}))
print([name for name in ("asyncio", "ssl") if name in new])
print(sorted(name for name in new if name.startswith("app.") and not name.startswith(("app.client", "app.wire"))))
from app.wire.common import PublicModel
models = PublicModel.__subclasses__()
print(len(models) > 30, [model.__name__ for model in models if model.__pydantic_complete__])
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


def test_the_client_imports_two_packages_and_builds_no_model_before_it_is_used() -> None:
    assert printed(CLIENT) == ["[]", "[]", "['app.plainly', 'app.recipe']", "True []"]
