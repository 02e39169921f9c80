"""What all tests share."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from occupancy_db.settings import Settings

# How long an example takes says more of the machine than of the code.
settings.register_profile("ours", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ours")


@pytest.fixture(autouse=True)
def no_settings_of_the_developer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A test means the same in every shell and beside every .env, and can never reach a real database."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
