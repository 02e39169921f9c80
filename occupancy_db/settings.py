"""Settings from the environment, then from ``.env`` in the current directory."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, SecretStr, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from occupancy_db.environment import ENV_FILE
from occupancy_db.environment import Environment as Environment  # part of this module for clients

# PostgreSQL truncates longer identifiers (NAMEDATALEN - 1): the connection would use another name.
Identifier = Annotated[str, Field(min_length=1, max_length=63)]


class SslMode(StrEnum):
    """The TLS mode of a TCP connection, as in libpq."""

    DISABLE = "disable"
    ALLOW = "allow"
    PREFER = "prefer"
    REQUIRE = "require"
    VERIFY_CA = "verify-ca"
    VERIFY_FULL = "verify-full"


class _PasswordOnce(PydanticBaseSettingsSource):
    """A source whose password counts only if the sources before it have none, in either form."""

    def __init__(
        self,
        settings_cls: type[BaseSettings],
        source: PydanticBaseSettingsSource,
        earlier: tuple[PydanticBaseSettingsSource, ...],
    ) -> None:
        super().__init__(settings_cls)
        self._source = source
        self._earlier = earlier

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """As the source."""
        return self._source.get_field_value(field, field_name)

    def __call__(self) -> dict[str, Any]:
        """The values of the source."""
        found = self._source()
        names = {"postgres_password", "postgres_password_file"}
        if any(names & source().keys() for source in self._earlier):
            return {name: value for name, value in found.items() if name not in names}
        return found


class Settings(BaseSettings):
    """The address of the database, and how to connect to it.

    Every field is an environment variable of the same name in upper case. An empty value counts as unset.
    Unknown keys of ``.env`` are ignored, so that other programs can use the same file. A password of the
    environment, in POSTGRES_PASSWORD or in POSTGRES_PASSWORD_FILE, replaces both of these keys of ``.env``.

    Raises:
        pydantic.ValidationError: a value is invalid. The text names the field and does not contain the value.
    """

    model_config = SettingsConfigDict(
        env_file=ENV_FILE, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True
    )

    environment: Environment = Environment.DEVELOPMENT
    postgres_host: str = Field(
        "localhost", description="Host name, IP address, or socket directory (begins with '/')"
    )
    postgres_port: int = Field(5432, ge=1, le=65535)
    postgres_db: Identifier = "occupancy_dev"
    postgres_test_db: Identifier = Field(
        "occupancy_test", description="The database when ENVIRONMENT=testing"
    )
    postgres_user: Identifier = "occupancy"
    postgres_password: SecretStr | None = None
    postgres_password_file: Path | None = None
    postgres_sslmode: SslMode | None = Field(None, description="Default: see sslmode")
    postgres_sslrootcert: Path | None = Field(None, description="CA file; default: the system's trusted CAs")
    postgres_pool_size: int | None = Field(None, ge=1, le=1000, description="Default: see pool")
    postgres_max_overflow: int | None = Field(None, ge=0, le=1000, description="Default: see pool")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The sources of pydantic-settings in their order; only the first password among them counts."""
        sources = (init_settings, env_settings, dotenv_settings, file_secret_settings)
        return (
            init_settings,
            *(
                _PasswordOnce(settings_cls, source, sources[:number])
                for number, source in enumerate(sources)
                if number
            ),
        )

    @model_validator(mode="after")
    def _read_password_file(self) -> Self:
        path = self.postgres_password_file
        if path is None:
            return self
        if self.postgres_password is not None:
            raise ValueError("set POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE, not both")
        try:
            password = path.read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            raise ValueError(f"POSTGRES_PASSWORD_FILE: cannot read {path}: {error.strerror}") from None
        except UnicodeDecodeError:
            # "from None": a decoding error contains bytes of the secret.
            raise ValueError(f"POSTGRES_PASSWORD_FILE: {path} is not UTF-8 text") from None
        if not password:
            raise ValueError(f"POSTGRES_PASSWORD_FILE: {path} is empty")
        self.postgres_password = SecretStr(password)
        return self

    @model_validator(mode="after")
    def _keep_tests_apart(self) -> Self:
        if self.environment is Environment.TESTING and self.postgres_test_db == self.postgres_db:
            raise ValueError("POSTGRES_TEST_DB must differ from POSTGRES_DB: tests never touch real data")
        return self

    @property
    def database(self) -> str:
        """The database to use: ``POSTGRES_TEST_DB`` when testing, else ``POSTGRES_DB``."""
        return self.postgres_test_db if self.environment is Environment.TESTING else self.postgres_db

    @property
    def uses_socket(self) -> bool:
        """Whether the host is the directory of a Unix socket, as in libpq. TLS settings are then ignored."""
        return self.postgres_host.startswith("/")

    @property
    def sslmode(self) -> SslMode:
        """``POSTGRES_SSLMODE``; default: verify-full in production, prefer in other environments."""
        if self.postgres_sslmode is not None:
            return self.postgres_sslmode
        return SslMode.VERIFY_FULL if self.environment is Environment.PRODUCTION else SslMode.PREFER

    @property
    def where(self) -> str:
        """The target for messages: ``host:port/database as user``."""
        return f"{self.postgres_host}:{self.postgres_port}/{self.database} as {self.postgres_user}"
