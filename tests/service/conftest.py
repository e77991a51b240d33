"""What takes a while and several modules look at: nobody changes it."""

from pathlib import Path

import pytest

from app.settings import Settings
from tests.service.backups import Saved, save


@pytest.fixture(scope="session")
def saved(seeded: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return save(seeded, tiny, tmp_path_factory.mktemp("saved"))


@pytest.fixture
def elsewhere(saved: Saved, tmp_path: Path) -> Settings:
    """Another data folder, which is not there yet."""
    return saved.settings.model_copy(update={"data_dir": tmp_path / "restored"})
