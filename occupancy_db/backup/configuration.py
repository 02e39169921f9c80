"""The settings of backups, from the environment."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from occupancy_db.environment import ENV_FILE
from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.settings import Settings

Directory = Annotated[Path, AfterValidator(Path.absolute)]
Count = Annotated[int, Field(ge=0, le=10_000)]


class BackupSettings(BaseSettings):
    """Where backup sets are, and how many are kept; the variables are the fields with the prefix ``BACKUP_``.

    Raises:
        pydantic.ValidationError: a value is invalid.
    """

    model_config = SettingsConfigDict(
        env_prefix="BACKUP_", env_file=ENV_FILE, extra="ignore", env_ignore_empty=True
    )

    dir: Directory = Path("/var/lib/occupancy/backups")
    rehearsal_dir: Directory = Field(
        Path("/var/lib/occupancy/rehearsal"),
        description="Where throwaway clusters are made; its owner runs them if root calls",
    )
    keep_hourly: Count = 24
    keep_daily: Count = 7
    keep_weekly: Count = 5
    keep_monthly: Count = 12
    keep_last: int = Field(
        3, ge=1, le=10_000, description="Number of newest verified sets that are always kept"
    )
    compression: str = Field("gzip:3", description="Value of pg_dump --compress")
    image: str = Field("", description="Container image of this program, for the manifest")
    signing_key: Path | None = Field(
        None, description="The secret key of minisign that signs the sets of this host"
    )
    trusted_keys: Path | None = Field(
        None, description="The public keys whose sets are verified and restored, a line each"
    )
    other_databases: str = Field(
        "", description="Names of the databases besides the product's own, separated by commas"
    )
    secrets_dir: Path = Field(
        Path("/run/secrets"), description="Passwords of the product's users, a file for each user"
    )

    @property
    def others(self) -> list[str]:
        """The databases besides the product's own."""
        return [name for name in self.other_databases.split(",") if name]


def as_user(settings: Settings, user: str, backup: BackupSettings) -> Settings:
    """Return settings for the same database as another user of the product.

    Args:
        settings: The database, and any user.
        user: Name of the other user.
        backup: Where the users' passwords are.

    Raises:
        DatabaseError: the other user's password cannot be read.
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
    """Return settings for another database, with the same server and user."""
    return settings.model_copy(update={"postgres_db": database, "postgres_test_db": database})


def product(settings: Settings, backup: BackupSettings) -> Settings:
    """Return settings for the product's own database: it tells whether the clock is right.

    Args:
        settings: That database or another of the host.
        backup: Which databases are others.
    """
    return in_database(settings, Settings().database) if settings.database in backup.others else settings
