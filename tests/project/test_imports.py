"""What the serving process must never import: it would cost seconds at start and hundreds of MB."""

import subprocess
import sys

HEAVY = ("torch", "transformers", "sentence_transformers", "onnx", "huggingface_hub")


def test_the_serving_process_imports_no_torch() -> None:
    code = f"import sys, app.serve, app.cli; print([name for name in {HEAVY} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
