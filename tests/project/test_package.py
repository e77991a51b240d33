"""What is built is whole: installed into an environment of its own, it runs from any folder."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "app", "trainer", "samples")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made of the sdist that was made of a copy: a checkout may hold what an earlier build left."""
    source, made = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("made")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(made), str(source)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (found,) = made.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, which sees the dependencies that are installed here, and not this checkout."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    command = ["-m", "pip", "--python", str(python), "install", "--quiet", "--no-index", "--no-deps", str(wheel)]
    subprocess.run([sys.executable, *command], cwd=folder, env=without_this_checkout(), check=True)
    (packages,) = folder.glob("lib/*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return folder


def without_this_checkout() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def run(installed: Path, folder: Path, *command: str, timeout_s: float = 120) -> str:
    ran = subprocess.run(
        [installed / "bin" / command[0], *command[1:]],
        cwd=folder,
        env=without_this_checkout(),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_the_wheel_holds_every_file_of_the_packages_and_the_samples(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    (data,) = {name.partition("/")[0] for name in held if ".data/" in name}
    for folder, where in (("app", "app"), ("trainer", "trainer"), ("samples", f"{data}/data/share/adiabat/samples")):
        files = [path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        assert len(files) > 5
        assert [str(path) for path in files if f"{where}/{path.relative_to(ROOT / folder)}" not in held] == []


def test_it_runs_from_an_empty_folder_and_finds_its_samples(installed: Path, tmp_path: Path) -> None:
    assert run(installed, tmp_path, "adiabat", "--version").startswith("adiabat 0.")
    assert " 0 failed" in run(installed, tmp_path, "adiabat", "doctor")
    code = "import app, app.samples; print(app.__file__); print(app.samples.at_hand())"
    package, samples = run(installed, tmp_path, "python", "-c", code).splitlines()
    assert Path(package).is_relative_to(installed)
    assert Path(samples) == installed.resolve() / "share" / "adiabat" / "samples"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.nightly
def test_the_demo_of_an_installed_wheel_walks_the_whole_road(installed: Path, tmp_path: Path) -> None:
    said = run(installed, tmp_path, "adiabat", "demo", "--exit", timeout_s=900)
    assert "523 embedded" in said
    assert "That was the whole road." in said
    assert [each.name for each in tmp_path.iterdir()] == ["demo-data"]
