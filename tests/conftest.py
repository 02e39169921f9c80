"""What all tests share."""

from pathlib import Path

import pytest

from occupancy_db.settings import Settings


@pytest.fixture(autouse=True)
def no_settings_of_the_developer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A test means the same in every shell and beside every .env, and can never reach a real database."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
