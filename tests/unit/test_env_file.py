"""Every value of a .env file reads back as it was set, whoever reads it."""

import json
import re
import subprocess
from pathlib import Path
from shutil import which

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from occupancy_db.settings import Settings
from provisioning.convergence import env_with_password
from provisioning.env_file import assign, read

TEXT = "POSTGRES_PASSWORD=\nPOSTGRES_USER=occupancy_app\nPGPASSWORD=\nPGUSER=occupancy_app\nLAST='1' # \"\n"

# A shell cannot have a zero byte in a variable, and a password is one line.
SECRETS = st.one_of(
    st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), min_size=1),
    st.text("ab #$\"'\\`{}:-~!=", min_size=1),
)
AWKWARD = ["#", " outer ", "it's $5", "${HOME}", "a\\", '\\"', "'${x}`\\'", "$(id)", "\u2028", "~", "a #b"]


def shell(content: str, directory: Path, *names: str) -> list[str]:
    """The variables as a POSIX shell has them, that stops at the use of an unset one."""
    (directory / "app.env").write_text(content, encoding="utf-8")
    program = "set -ua; . ./app.env; " + " ".join(f"printf '%s\\0' \"${name}\";" for name in names)
    done = subprocess.run(["sh", "-c", program], cwd=directory, capture_output=True, check=True)
    assert done.stderr == b""
    return done.stdout.decode().split("\0")[:-1]


@given(secret=SECRETS | st.sampled_from(AWKWARD))
def test_python_dotenv_reads_what_was_set(secret: str) -> None:
    found = read(env_with_password(TEXT, secret))
    assert found == {
        "POSTGRES_PASSWORD": secret,
        "POSTGRES_USER": "occupancy_app",
        "PGPASSWORD": secret,
        "PGUSER": "occupancy_app",
        "LAST": "1",
    }


@given(SECRETS | st.sampled_from(AWKWARD))
def test_no_value_ends_in_a_backslash_before_its_quote(secret: str) -> None:
    """Versions of python-dotenv before 1.2 would take the quote for an escaped one."""
    assert not [line for line in env_with_password(TEXT, secret).split("\n") if line.endswith('\\"')]


@settings(max_examples=100, deadline=None)
@given(secret=SECRETS | st.sampled_from(AWKWARD))
def test_a_shell_reads_what_was_set(secret: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("shell")
    names = ["POSTGRES_PASSWORD", "PGPASSWORD", "POSTGRES_USER", "PGUSER", "LAST"]
    found = shell(env_with_password(TEXT, secret), directory, *names)
    assert found == [secret, secret, "occupancy_app", "occupancy_app", "1"]


@pytest.mark.parametrize("secret", AWKWARD)
def test_the_package_reads_what_was_set(secret: str) -> None:
    Path(".env").write_text(env_with_password(TEXT, secret), encoding="utf-8")
    password = Settings().postgres_password
    assert password is not None
    assert password.get_secret_value() == secret


@pytest.mark.skipif(not which("docker"), reason="docker is not installed")
def test_compose_reads_what_was_set(tmp_path: Path) -> None:
    services = {}
    for number, secret in enumerate(AWKWARD):
        (tmp_path / f"{number}.env").write_text(env_with_password(TEXT, secret), encoding="utf-8")
        services[f"s{number}"] = {"image": "none", "env_file": [f"{number}.env"]}
    (tmp_path / "compose.yaml").write_text(json.dumps({"services": services}))
    done = subprocess.run(
        ["docker", "compose", "config", "--format", "json"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)["services"]
    for number, secret in enumerate(AWKWARD):
        # The output is a Compose file again, where "$" is doubled.
        environment = found[f"s{number}"]["environment"]
        assert environment["POSTGRES_PASSWORD"].replace("$$", "$") == secret
        assert environment["PGUSER"] == "occupancy_app"


@given(secret=st.text("abcXYZ0189", min_size=32, max_size=32))
def test_a_generated_password_needs_no_quotes(secret: str) -> None:
    """So that docker's --env-file, which knows none, reads it too."""
    assert f"PGPASSWORD={secret}\n" in env_with_password(TEXT, secret)


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\0b"])
def test_what_no_line_can_hold_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="a line break or a zero byte"):
        assign(value, "X")


def test_a_value_that_needs_a_spare_variable_is_refused_without_one() -> None:
    assert assign("/home/it's/dist", "X") == 'X="/home/it\'s/dist"'
    with pytest.raises(ValueError, match="cannot hold this value"):
        assign("it's $5", "X")


class FiveKeys(BaseSettings):
    """A client's settings: the keys of the manual, and no others."""

    model_config = SettingsConfigDict(env_file=".env", extra="forbid")

    postgres_host: str
    postgres_port: int
    postgres_db: str
    postgres_user: str
    postgres_password: str


ROLE = Path(__file__).parents[2] / "roles/access/templates"


def rendered(name: str) -> str:
    """A template of the role with a value for every expression."""
    text = (ROLE / name).read_text()
    text = re.sub(r"^\{\{.*access_env\('(\w+)'.*$", r"\1=/dist/ca.crt", text, flags=re.MULTILINE)
    text = text.replace("{{ occupancy_port }}", "5432")
    return env_with_password(re.sub(r"\{\{.*?\}\}", "value", text), "it's $5")


def test_a_client_that_forbids_other_keys_reads_the_file_for_it() -> None:
    Path(".env").write_text(rendered("app.settings.env.j2"))
    assert FiveKeys().postgres_password == "it's $5"
    Path(".env").write_text(rendered("app.env.j2"))
    with pytest.raises(ValidationError, match="extra_forbidden"):
        FiveKeys()


def test_a_client_that_forbids_other_keys_reads_app_env_through_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [name.upper() for name in FiveKeys.model_fields]
    for name, value in zip(names, shell(rendered("app.env.j2"), tmp_path, *names), strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    assert FiveKeys().postgres_user == "occupancy_app"
