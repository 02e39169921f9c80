"""What the collector of the host has found: jobs, disks, certificates, containers.

The tools' containers have no network and see neither cron nor the disks. The collector runs as root on the
host (``roles/checks/files/occupancy-checks.py``) and writes this document as ``host.json``.
"""

from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

DIRECTORY = Path("/var/lib/occupancy/status")
"""Where the documents are on a host."""

HOST, STATUS = "host.json", "status.json"
"""The collector's document, and the results of the last run of the job."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Job(_Part):
    """A scheduled job.

    Attributes:
        name: As in the file of cron.
        missed: Scheduled runs that ended without success, or did not run, since the last success.
        last_success: When the last success ended; None if there was none.
        last_start: When the last run began; None if there was none.
        last_exit_code: How the last run ended; None if there was none.
    """

    name: str
    missed: int = 0
    last_success: datetime | None = None
    last_start: datetime | None = None
    last_exit_code: int | None = None


class Sample(_Part):
    """The free space of a disk at one time, in bytes."""

    time: datetime
    free: int


class Disk(_Part):
    """A file system with data of the product.

    Attributes:
        path: A directory on it.
        size: Bytes of it that root and others can use.
        free: Bytes that are free for others than root.
        history: Earlier samples of the free space, the oldest first.
    """

    path: str
    size: int
    free: int
    history: tuple[Sample, ...] = ()


class Container(_Part):
    """A container of the product.

    Attributes:
        name: Its name.
        state: As docker inspect says: running, exited, restarting, …
        health: healthy, unhealthy or starting; empty without a health check.
        restarts: How often the engine has started it again.
    """

    name: str
    state: str
    health: str = ""
    restarts: int = 0


class Image(_Part):
    """An image of the product, and when it was made."""

    name: str
    created: datetime


class Metric(_Part):
    """A sample of a metric file."""

    name: str
    labels: dict[str, str] = Field(default_factory=dict)
    value: float


class User(_Part):
    """What the product sets for a login user of the server.

    Attributes:
        name: Of the user.
        connections: The limit of its connections; -1 for none.
        settings: Parameters of its sessions.
    """

    name: str
    connections: int = -1
    settings: dict[str, str] = Field(default_factory=dict)


class Notify(_Part):
    """Messages that wait to be sent."""

    pending: int = 0
    oldest_pending: datetime | None = None
    last_error: str = ""


class Host(_Part):
    """The document.

    Attributes:
        time: When it was written.
        host: Name of the host in the inventory.
        installed: When the product was installed.
        interval: Seconds between two runs of the job ``checks``.
        cron: Whether cron runs.
        synchronised: Whether the host's clock follows another one; None if that cannot be told.
        engine: Why the Docker Engine does not answer; empty if it does.
        databases: The databases that are backed up, the product's own first.
        offsite: Whether copies elsewhere are configured.
        certificates: End of the certificate of the ``server`` and of the ``ca``.
        notify: Messages that wait; None without notifications.
    """

    time: datetime
    host: str
    installed: datetime | None = None
    interval: int = 300
    cron: bool
    synchronised: bool | None = None
    engine: str = ""
    databases: tuple[str, ...] = ()
    offsite: bool = False
    jobs: tuple[Job, ...] = ()
    disks: tuple[Disk, ...] = ()
    certificates: dict[str, datetime] = Field(default_factory=dict)
    containers: tuple[Container, ...] = ()
    images: tuple[Image, ...] = ()
    metrics: tuple[Metric, ...] = ()
    users: tuple[User, ...] = ()
    notify: Notify | None = None

    def metric(self, name: str, **labels: str) -> float | None:
        """The value of a metric with exactly these labels; None if there is none."""
        return next((one.value for one in self.metrics if (one.name, one.labels) == (name, labels)), None)

    def moment(self, name: str, **labels: str) -> datetime | None:
        """A metric that is a time; None if there is none, or if it is 0."""
        seconds = self.metric(name, **labels)
        return datetime.fromtimestamp(seconds, UTC) if seconds else None

    def job(self, name: str) -> Job | None:
        """A scheduled job; None if it is not scheduled."""
        return next((one for one in self.jobs if one.name == name), None)


def read_host(directory: Path) -> Host | None:
    """Read the document of a directory.

    Returns:
        None if there is no such file, as on a machine that is no host of the product.

    Raises:
        ValueError: it is no such document; the text says where.
        OSError: it cannot be read.
    """
    path = directory / HOST
    try:
        return Host.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        places = sorted({".".join(map(str, one["loc"])) for one in error.errors(include_input=False)})
        raise ValueError(
            f"{path} is not a document of the collector: {', '.join(places) or 'no JSON'}"
        ) from None
