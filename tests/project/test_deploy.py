"""What ships beside the code: the compose file is valid, and says what it must."""

import os
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
        assert service.get("user") == "10001" or "-unprivileged" in service["image"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["cap_drop"] == ["ALL"]
    for name in ("app", "trainer"):
        service = compose["services"][name]
        assert service["read_only"] is True
        assert [mount.partition(":")[0] for mount in service["tmpfs"]] == ["/tmp"]
        assert service["environment"]["HOME"] == "/tmp"  # where libraries keep what they cache


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


def test_images_are_pinned_to_the_digests_that_docker_tells(tmp_path: Path) -> None:
    """No container engine is here: a program that stands for docker says one and the same digest for all."""
    for name in ("Dockerfile", "docker-compose.yml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    (tmp_path / "tools").mkdir()
    tool = tmp_path / "tools" / "pin_images.py"
    tool.write_text((ROOT / "tools" / "pin_images.py").read_text())
    docker = tmp_path / "docker"
    docker.write_text(f'#!/bin/sh\n[ "$1 $2 $3" = "buildx imagetools inspect" ] && echo sha256:{"0" * 64}\n')
    docker.chmod(0o755)

    def run(*options: str) -> "subprocess.CompletedProcess[str]":
        path = f"{tmp_path}:{os.environ['PATH']}"
        command = [sys.executable, str(tool), *options]
        return subprocess.run(command, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False)

    if run("--check").returncode == 0:
        docker.write_text(docker.read_text().replace("0" * 64, "1" * 64))  # pinned already: the tag has moved
    assert run().returncode == 0
    assert run("--check").returncode == 0
    compose = YAML(typ="safe").load(tmp_path / "docker-compose.yml")
    assert re.fullmatch(r"qdrant/qdrant:v[\d.]+-unprivileged@sha256:[01]{64}", compose["services"]["qdrant"]["image"])
    assert compose["services"]["app"]["image"] == "adiabat:0.1.0"
    assert re.search(
        r"^ARG PYTHON=python:[\w.-]+@sha256:[01]{64}$", (tmp_path / "Dockerfile").read_text(), re.MULTILINE
    )
