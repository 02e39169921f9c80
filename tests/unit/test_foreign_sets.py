"""What is in the directory of the sets, and is no set of this program, is left alone."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from occupancy_db.backup.manifest import DAMAGED, MANIFEST, PINNED
from occupancy_db.backup.sets import Store
from occupancy_db.errors import DatabaseError, ExitCode
from tests.unit.test_backup_sets import publish


def foreigner(kind: str, store: Store, place: Path) -> Path:
    """Put something with the name of a set into the directory that is not one of this program."""
    made = publish(store)
    if kind == "link":
        made.path.rename(place)
        made.path.symlink_to(place)
    elif kind == "dangling link":
        made.path.rename(place)
        made.path.symlink_to(place / "nowhere")
    elif kind == "file":
        made.path.rename(place)
        made.path.write_text("not a directory")
    elif kind == "unfinished link":
        made.path.rename(place)
        made.path.with_name(f".partial-{made.id}").symlink_to(place)
    elif kind == "unfinished file":
        made.path.rename(place)
        made.path.with_name(f".partial-{made.id}").write_text("not a directory")
    return made.path


FOREIGN = ["link", "dangling link", "file", "unfinished link", "unfinished file"]


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_thing_is_named_and_left_alone(tmp_path: Path, kind: str) -> None:
    directory = tmp_path / "sets"
    directory.mkdir()
    store = Store(directory)
    made = publish(store)
    path = foreigner(kind, store, tmp_path / "another disk")
    before = sorted(directory.iterdir())
    assert [one.id for one in store.sets("house")] == [made.id]
    store.clear()
    (line,) = store.foreign("house")
    assert path.name in line
    assert "left alone" in line
    assert store.foreign("another") == []
    assert sorted(directory.iterdir()) == before
    assert (tmp_path / "another disk" / MANIFEST).exists()
    with pytest.raises(DatabaseError) as raised:
        store.find("house", path.name)
    assert raised.value.code is ExitCode.DAMAGED


@pytest.fixture
def another_user() -> Iterator[Path]:
    """A directory of a user without privileges, who this process becomes."""
    if os.geteuid():
        pytest.skip("only root can become another user")
    directory = Path(tempfile.mkdtemp(prefix="occupancy-"))
    directory.chmod(0o755)
    sets_of_user = directory / "sets"
    sets_of_user.mkdir()
    os.chown(sets_of_user, 65534, 65534)
    try:
        os.seteuid(65534)
        yield sets_of_user
    finally:
        os.seteuid(0)
        shutil.rmtree(directory)


@pytest.mark.parametrize(
    ("mode", "unfinished", "listed"), [(0o700, False, False), (0o755, False, True), (0o755, True, False)]
)
def test_what_belongs_to_another_user_is_named_and_left_alone(
    another_user: Path, mode: int, unfinished: bool, listed: bool
) -> None:
    """As a set that was copied to the directory as root."""
    store = Store(another_user)
    made, other = publish(store), publish(store)
    path = made.path.rename(another_user / f"{'.partial-' if unfinished else ''}{made.id}")
    os.seteuid(0)
    for file in [path, *path.iterdir()]:
        os.chown(file, 0, 0)
    path.chmod(mode)
    os.seteuid(65534)
    assert {one.id for one in store.sets("house")} == {other.id, *([made.id] if listed else [])}
    (line,) = store.foreign("house")
    assert path.name in line
    store.clear()
    if listed:
        (found,) = [one for one in store.sets("house") if one.id == made.id]
        assert "may not be removed by the user 65534" in (store.remove(found) or "")
    assert path.exists()
    assert store.remove(other) is None


@pytest.mark.parametrize("name", [PINNED, DAMAGED])
def test_a_marker_that_is_no_file_does_not_prevent_the_list(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path)
    made = publish(store)
    (made.path / name).mkdir()
    (found,) = store.sets("house")
    assert name in ((found.pinned if name == PINNED else found.problem) or "")
