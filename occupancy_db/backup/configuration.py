"""What backups are told by the environment."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.settings import Settings

Directory = Annotated[Path, AfterValidator(Path.absolute)]
Count = Annotated[int, Field(ge=0, le=10_000)]


class BackupSettings(BaseSettings):
    """Where backup sets are and how many are kept; every field is a variable with ``BACKUP_`` before it.

    Raises:
        pydantic.ValidationError: a value is unusable.
    """

    model_config = SettingsConfigDict(
        env_prefix="BACKUP_", env_file=".env", extra="ignore", env_ignore_empty=True
    )

    dir: Directory = Path("/var/lib/occupancy/backups")
    rehearsal_dir: Directory = Field(
        Path("/var/lib/occupancy/rehearsal"),
        description="Throwaway clusters; its owner runs them if root calls",
    )
    keep_hourly: Count = 24
    keep_daily: Count = 7
    keep_weekly: Count = 5
    keep_monthly: Count = 12
    keep_last: int = Field(3, ge=1, le=10_000, description="Never fewer verified sets than this")
    compression: str = Field("gzip:3", description="As pg_dump --compress takes it")
    image: str = Field("", description="The image that this runs in, for the manifest")
    secrets_dir: Path = Field(
        Path("/run/secrets"), description="Passwords of the product's users, a file each"
    )


def as_user(settings: Settings, user: str, backup: BackupSettings) -> Settings:
    """The same server as another user of the product.

    Raises:
        DatabaseError: that user's password is not here.
    """
    if user == settings.postgres_user:
        return settings
    try:
        password = (backup.secrets_dir / user).read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise DatabaseError(
            ExitCode.CONFIGURATION,
            f"cannot read the password of {user}: {error.strerror}: {error.filename}",
            "Use 'occupancy-db' on the host, which has it.",
        ) from None
    return settings.model_copy(update={"postgres_user": user, "postgres_password": SecretStr(password)})


def in_database(settings: Settings, database: str) -> Settings:
    """The same server and user, another database."""
    return settings.model_copy(update={"postgres_db": database, "postgres_test_db": database})
