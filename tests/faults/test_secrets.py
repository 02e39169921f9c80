"""No password is seen by others during a backup and a restore, nor in anything that they leave."""

import stat
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from tests.database.site import LIVE
from tests.database.users import NAMES, ODD, PASSWORD, password
from tests.faults.house import House, Process

pytestmark = pytest.mark.fault

SECRETS = [form.encode() for form in (ODD, ODD.replace("\\", "\\\\").replace(":", "\\:"), PASSWORD)]
"""As they are, and as a pgpass file has them."""


class Watch(threading.Thread):
    """Looks at the command lines and environments of a command and of all that it starts, over and over."""

    def __init__(self, process: Process, temporary: Path) -> None:
        super().__init__()
        self.process = process
        self.temporary = temporary
        self.seen: dict[str, bytes] = {}
        self.password_files: set[int] = set()

    def run(self) -> None:
        while self.process.process.poll() is None:
            for pid, name in {self.process.process.pid: "itself", **self.process.children()}.items():
                for kind in ("cmdline", "environ"):
                    with suppress(OSError):  # it has ended
                        self.seen[f"{name} {pid} {kind}"] = Path(f"/proc/{pid}/{kind}").read_bytes()
            for file in self.temporary.glob("*/pgpass"):
                with suppress(OSError):
                    self.password_files.add(stat.S_IMODE(file.stat().st_mode))


@pytest.mark.parametrize("command", [("backup", "create"), ("restore", "latest", "--confirm", LIVE)])
def test_no_password_is_to_be_seen(house: House, command: tuple[str, ...]) -> None:
    site = house.site
    process = house.start(*command)
    watch = Watch(process, site.temporary)
    watch.start()
    ended = process.end()
    watch.join()
    assert ended.returncode == 0, ended.stderr

    # It has looked at the right moments, and would have seen them.
    names = {key.split()[0] for key in watch.seen}
    assert names >= {"itself", "pg_dump", "pg_restore", "postgres"}
    assert watch.password_files == {0o600}
    everywhere = {
        **watch.seen,
        **{str(path): path.read_bytes() for path in site.directory.rglob("*") if path.is_file()},
        "the server's log": (site.cluster.directory / "log").read_bytes(),
        "what it said": (ended.stdout + ended.stderr).encode(),
    }
    found = {place for place, content in everywhere.items() if any(secret in content for secret in SECRETS)}
    assert found == {str(site.secrets / name) for name in NAMES}
    assert all(password(name).encode() in everywhere[str(site.secrets / name)] for name in NAMES)
    assert site.unfinished() == []
