"""What ships beside the code: the compose file is valid, and says what it must."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from ruamel.yaml import YAML

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
    compose = YAML(typ="safe").load(ROOT / "docker-compose.yml")
    assert compose["services"]["app"]["environment"]["ADIABAT_API_KEY"].startswith("${ADIABAT_API_KEY:?")
    assert set(compose["services"]) == {"app", "trainer", "qdrant"}
    for service in compose["services"].values():
        assert re.search(r":v?\d+\.\d+\.\d+", service["image"])
        assert service.get("user") == "10001" or service["image"].endswith("-unprivileged")


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
