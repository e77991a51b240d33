"""What ships beside the code: the compose file is valid, and says what it must."""

import subprocess
import sys
import tomllib
from pathlib import Path

from app.settings import Settings

ROOT = Path(__file__).parents[2]


def test_the_compose_file_keeps_to_the_compose_specification() -> None:
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        "docker-compose.yml",
    ]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_the_compose_file_asks_for_a_key_pins_images_and_runs_nobody_as_root() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    assert "${ADIABAT_API_KEY:?" in text
    images = [line.split()[1] for line in text.splitlines() if line.strip().startswith("image:")]
    assert images
    assert all(":" in image and not image.endswith(":latest") for image in images)
    assert 'user: "10001"' in text


def test_every_setting_is_documented() -> None:
    text = (ROOT / "docs" / "settings.md").read_text()
    missing = [name for name in Settings.model_fields if f"ADIABAT_{name.upper()}" not in text]
    assert missing == []


def test_every_dependency_has_its_line() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (ROOT / "docs" / "dependencies.md").read_text()
    named = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    missing = [line for line in named if f"`{line.split('>')[0].split('=')[0]}`" not in text]
    assert missing == []
