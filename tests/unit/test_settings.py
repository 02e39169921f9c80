"""Settings from the environment and .env: their errors are readable, and no text contains the password."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from occupancy_db.errors import ExitCode, explain
from occupancy_db.settings import Environment, Settings, SslMode

SECRET = "hunter2-hunter2"


def load(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return Settings()


def problem(monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    with pytest.raises(ValidationError) as raised:
        load(monkeypatch, **variables)
    assert SECRET not in str(raised.value)
    known = explain(raised.value)
    assert known is not None
    assert known.code is ExitCode.CONFIGURATION
    assert SECRET not in str(known)
    return known.what


def test_defaults_are_those_of_the_manual() -> None:
    settings = Settings()
    assert settings.where == "localhost:5432/occupancy_dev as occupancy"
    assert settings.environment is Environment.DEVELOPMENT
    assert settings.postgres_password is None


def test_the_environment_overrides_the_file_and_unknown_keys_are_ignored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path(".env").write_text(f"POSTGRES_DB=of_file\nPOSTGRES_PASSWORD={SECRET}\nTZ=UTC\nPOSTGRES_PORT=\n")
    settings = load(monkeypatch, POSTGRES_DB="of_environment")
    assert (settings.database, settings.postgres_port) == ("of_environment", 5432)
    assert settings.postgres_password is not None
    assert settings.postgres_password.get_secret_value() == SECRET


def test_the_password_is_in_no_representation(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, POSTGRES_PASSWORD=SECRET)
    for text in (str(settings), repr(settings), settings.model_dump_json(), settings.where):
        assert SECRET not in text


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_password_file_is_read_without_its_line_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ending: str
) -> None:
    path = tmp_path / "password"
    path.write_bytes(f" {SECRET} {ending}".encode())
    settings = load(monkeypatch, POSTGRES_PASSWORD_FILE=str(path))
    assert settings.postgres_password is not None
    assert settings.postgres_password.get_secret_value() == f" {SECRET} "
    assert SECRET not in repr(settings)


def test_two_passwords_are_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("x")
    text = problem(monkeypatch, POSTGRES_PASSWORD=SECRET, POSTGRES_PASSWORD_FILE=str(path))
    assert text == "set POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE, not both"


@pytest.mark.parametrize("of_file", ["POSTGRES_PASSWORD={}", "POSTGRES_PASSWORD_FILE=/nonexistent/{}"])
@pytest.mark.parametrize("given", ["POSTGRES_PASSWORD", "POSTGRES_PASSWORD_FILE"])
def test_a_password_of_the_environment_replaces_that_of_the_file_in_either_form(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, of_file: str, given: str
) -> None:
    Path(".env").write_text(f"POSTGRES_USER=of_file\n{of_file.format('other')}\n")
    path = tmp_path / "password"
    path.write_text(SECRET)
    settings = load(monkeypatch, **{given: SECRET if given == "POSTGRES_PASSWORD" else str(path)})
    assert settings.postgres_password is not None
    assert settings.postgres_password.get_secret_value() == SECRET
    assert settings.postgres_user == "of_file"


def test_a_password_that_a_program_passes_replaces_that_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("POSTGRES_PASSWORD_FILE", "/nonexistent/other")
    arguments: dict[str, Any] = {"postgres_password": SECRET}
    settings = Settings(**arguments)
    assert settings.postgres_password is not None
    assert settings.postgres_password.get_secret_value() == SECRET


def test_two_passwords_of_the_file_are_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("x")
    Path(".env").write_text(f"POSTGRES_PASSWORD={SECRET}\nPOSTGRES_PASSWORD_FILE={tmp_path}/password\n")
    assert problem(monkeypatch) == "set POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE, not both"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot read"),
        (b"", "is empty"),
        (b"\n", "is empty"),
        (SECRET.encode() + b"\xff", "is not UTF-8"),
    ],
)
def test_an_unusable_password_file_is_named_and_not_quoted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "password"
    if content is not None:
        path.write_bytes(content)
    text = problem(monkeypatch, POSTGRES_PASSWORD_FILE=str(path))
    assert text.startswith("POSTGRES_PASSWORD_FILE: ")
    assert str(path) in text
    assert reason in text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("POSTGRES_PORT", SECRET),
        ("POSTGRES_PORT", "0"),
        ("POSTGRES_PORT", "65536"),
        ("POSTGRES_SSLMODE", "always"),
        ("ENVIRONMENT", "staging"),
        ("POSTGRES_DB", "d" * 64),
    ],
)
def test_a_bad_value_is_one_line_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    text = problem(monkeypatch, **{name: value, "POSTGRES_PASSWORD": SECRET})
    assert text.startswith(f"{name}: ")
    assert "\n" not in text


@pytest.mark.parametrize(
    ("environment", "chosen", "sslmode"),
    [
        ("development", "", SslMode.PREFER),
        ("testing", "", SslMode.PREFER),
        ("production", "", SslMode.VERIFY_FULL),
        ("production", "require", SslMode.REQUIRE),
        ("development", "verify-ca", SslMode.VERIFY_CA),
    ],
)
def test_production_verifies_the_server_by_default(
    monkeypatch: pytest.MonkeyPatch, environment: str, chosen: str, sslmode: SslMode
) -> None:
    assert load(monkeypatch, ENVIRONMENT=environment, POSTGRES_SSLMODE=chosen).sslmode is sslmode


def test_the_environment_testing_uses_the_test_database(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"ENVIRONMENT": "testing", "POSTGRES_DB": "precious"}
    assert load(monkeypatch, **variables).database == "occupancy_test"
    assert load(monkeypatch, **variables, POSTGRES_TEST_DB="mine").database == "mine"
    assert "POSTGRES_TEST_DB" in problem(monkeypatch, **variables, POSTGRES_TEST_DB="precious")


@pytest.mark.parametrize(("host", "socket"), [("/run/postgresql", True), ("db.example", False)])
def test_a_host_with_a_slash_is_a_socket_directory(host: str, socket: bool) -> None:
    arguments: dict[str, Any] = {"postgres_host": host}
    assert Settings(**arguments).uses_socket is socket
