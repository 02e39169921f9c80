"""Fixtures and settings of all tests."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from occupancy_db.settings import Settings

# The time of an example depends on the machine more than on the code.
settings.register_profile("ours", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ours")


@pytest.fixture(autouse=True)
def no_settings_of_the_developer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove the developer's settings, so that no test depends on them or uses a real database."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
