"""What takes a while and several tests look at: nobody changes it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.passages.disk import copy_tree
from app.settings import Settings
from tests.conftest import Service, running
from tests.service.backups import Saved, save


@pytest.fixture(scope="session")
def saved(seeded: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return save(seeded, tiny, tmp_path_factory.mktemp("saved"))


@pytest.fixture(scope="module")
def unchanged(seeded: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service for what a module's tests only read, and for what is refused and leaves nothing behind."""
    folder = tmp_path_factory.mktemp("unchanged")
    copy_tree(seeded, folder / "data")
    settings = Settings(
        data_dir=folder / "data", passage_encoder=str(tiny), trainer=False, source_dirs=(folder,), threads=1
    )
    with running(settings) as service:
        yield service


@pytest.fixture
def elsewhere(saved: Saved, tmp_path: Path) -> Settings:
    """Another data folder, which is not there yet."""
    return saved.settings.model_copy(update={"data_dir": tmp_path / "restored"})
