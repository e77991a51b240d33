"""What ships beside the code: compose files and Kubernetes resources are valid, and say what they must."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from ruamel.yaml import YAML

from app.settings import Settings

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
RELEASES = ("1.30", "1.34", "1.37")


@pytest.mark.parametrize("file", ["docker-compose.yml", "deploy/compose.scale.yml"])
def test_the_compose_files_keep_to_the_compose_specification(file: str) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", file]
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


def test_at_scale_nothing_is_on_a_disk_that_two_share_and_every_secret_is_asked_for() -> None:
    text = (ROOT / "deploy" / "compose.scale.yml").read_text()
    compose = YAML(typ="safe").load(text)
    services = compose["services"]
    assert set(services) == {
        "proxy",
        "app",
        "trainer",
        "postgres",
        "qdrant-1",
        "qdrant-2",
        "qdrant-3",
        "minio",
        "bucket",
    }
    for name in ("app", "trainer"):
        assert services[name]["deploy"]["replicas"] == 2
        assert (services[name]["volumes"], services[name]["read_only"]) == (["/data"], True)
    assert set(re.findall(r"\$\{(\w+)", text)) == set(re.findall(r"\$\{(\w+):\?", text))
    for service in services.values():
        assert re.search(r":v?\d+\.\d+|:RELEASE\.\d+", service["image"])
        assert service["cap_drop"] == ["ALL"]
    for name in services["app"]["environment"]:
        assert (
            name.startswith("AWS_") or name == "HOME" or name.removeprefix("ADIABAT_").lower() in Settings.model_fields
        )
    assert (ROOT / "deploy" / "nginx.conf").is_file()


def resources(folder: Path) -> list[dict[str, Any]]:
    """Of all files but the kustomization's own."""
    files = sorted(path for path in folder.glob("*.yaml") if path.name != "kustomization.yaml")
    return [each for path in files for each in YAML(typ="safe").load_all(path)]


def rendered(folder: Path) -> list[dict[str, Any]]:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl, which has kustomize in it, is not on this machine")
    made = subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True, check=True).stdout
    return list(YAML(typ="safe").load_all(made))


@pytest.mark.parametrize("release", RELEASES)
def test_the_kubernetes_resources_keep_to_the_schemas(release: str) -> None:
    for resource in resources(KUBERNETES / "base"):
        kubernetes_validate.validate(resource, release, strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):  # a schema that takes anything would show nothing
        kubernetes_validate.validate(resource | {"spec": {"replicsa": 2}}, release, strict=True)


@pytest.mark.parametrize("overlay", ["base", "gpu"])
def test_what_kustomize_makes_keeps_to_the_schemas(overlay: str) -> None:
    made = rendered(KUBERNETES / overlay)
    assert len(made) == len(resources(KUBERNETES / "base"))
    for resource in made:
        kubernetes_validate.validate(resource, RELEASES[-1], strict=True)
    [trainer] = [each for each in made if each["kind"] == "Deployment" and each["metadata"]["name"] == "trainer"]
    [container] = trainer["spec"]["template"]["spec"]["containers"]
    assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (overlay == "gpu")
    assert container["resources"]["limits"]["memory"]  # an overlay adds, it replaces nothing


def test_kustomizations_name_every_file_and_patch_what_is_there() -> None:
    for folder in (KUBERNETES / "base", KUBERNETES / "gpu"):
        said = YAML(typ="safe").load(folder / "kustomization.yaml")
        files = {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}
        assert {*said["resources"], *(patch["path"] for patch in said.get("patches", []))} - {"../base"} == files
    named = {(each["kind"], each["metadata"]["name"]) for each in resources(KUBERNETES / "base")}
    for patch in said["patches"]:
        assert (patch["target"]["kind"], patch["target"]["name"]) in named
    for each in resources(KUBERNETES / "gpu"):
        assert (each["kind"], each["metadata"]["name"]) in named


def test_kubernetes_runs_nobody_as_root_writes_to_no_root_disk_and_holds_no_secret() -> None:
    made = resources(KUBERNETES / "base")
    config = next(each for each in made if each["kind"] == "ConfigMap")["data"]
    assert not {"ADIABAT_API_KEY", "ADIABAT_REGISTRY_URL", "AWS_SECRET_ACCESS_KEY"} & set(config)
    for name in config:
        assert name in ("AWS_REGION", "HOME") or name.removeprefix("ADIABAT_").lower() in Settings.model_fields
    deployments = {each["metadata"]["name"]: each["spec"]["template"] for each in made if each["kind"] == "Deployment"}
    for pod in (template["spec"] for template in deployments.values()):
        [container] = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert {"secretRef": {"name": "adiabat"}} in container["envFrom"]
    probes = {name: deployments["app"]["spec"]["containers"][0][f"{name}Probe"] for name in ("liveness", "readiness")}
    assert [probe["httpGet"]["path"] for probe in probes.values()] == ["/health/live", "/health/ready"]
    for each in made:  # whatever selects pods selects some
        spec = each.get("spec", {})
        selector = spec.get("selector") or spec.get("podSelector")
        if selector is not None:
            wanted = (selector.get("matchLabels") or selector).items()
            assert any(wanted <= template["metadata"]["labels"].items() for template in deployments.values())
    [scaled] = [each["spec"]["scaleTargetRef"] for each in made if each["kind"] == "HorizontalPodAutoscaler"]
    assert scaled["name"] in deployments


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
    (tmp_path / "deploy").mkdir()
    for name in ("Dockerfile", "docker-compose.yml", "deploy/compose.scale.yml"):
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

    assert run("--check").returncode == 0  # as they are shipped
    scale = tmp_path / "deploy" / "compose.scale.yml"
    scale.write_text(re.sub(r"(postgres:\S+)@sha256:\w+", r"\1", scale.read_text()))
    assert "deploy/compose.scale.yml: postgres:17" in run("--check").stderr
    assert run().returncode == 0
    assert run("--check").returncode == 0
    for image in re.findall(r"(?<=  image: ).+$", scale.read_text(), re.MULTILINE):
        assert image == "adiabat:0.1.0" or image.endswith("@sha256:" + "0" * 64)
    compose = YAML(typ="safe").load(tmp_path / "docker-compose.yml")
    assert re.fullmatch(r"qdrant/qdrant:v[\d.]+-unprivileged@sha256:0{64}", compose["services"]["qdrant"]["image"])
    assert compose["services"]["app"]["image"] == "adiabat:0.1.0"
    assert re.search(r"^ARG PYTHON=python:[\w.-]+@sha256:0{64}$", (tmp_path / "Dockerfile").read_text(), re.MULTILINE)
