"""The values of sslmode have the same meaning as in libpq."""

import ssl
from pathlib import Path

import pytest

from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.settings import Settings, SslMode
from occupancy_db.tls import ssl_argument

# A self-signed CA for these tests only; its key is not kept, and nothing checks its dates.
CA = """\
-----BEGIN CERTIFICATE-----
MIIBgTCCASegAwIBAgIUXS6A3lf1tRyuVDi1L+Can5m9nEEwCgYIKoZIzj0EAwIw
FTETMBEGA1UEAwwKdGVzdHMgb25seTAgFw0yNjExMjIxODE3MTNaGA8yMTI2MTAy
OTE4MTcxM1owFTETMBEGA1UEAwwKdGVzdHMgb25seTBZMBMGByqGSM49AgEGCCqG
SM49AwEHA0IABDIxDeaRtf/Ou5EUjvkhvM1TqqunhsjbOT7H65qMWWJNIoJYOiof
q1uBbUfutwrPH45zeceLDFfZ7gH1WQvpFr6jUzBRMB0GA1UdDgQWBBSkCo0Yt36K
l30gElLVzjEpQlXUDTAfBgNVHSMEGDAWgBSkCo0Yt36Kl30gElLVzjEpQlXUDTAP
BgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0gAMEUCIQC6FIXcB3NNJZoA3/QR
01B+z27xa6zEGbhOXD6rp4z/zgIgPN91OzOIT6rrl0OuiWaYwRuamJD6bvjJBYBN
Wb2YJew=
-----END CERTIFICATE-----
"""


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    path = tmp_path / "ca.crt"
    path.write_text(CA)
    return path


def settings(mode: SslMode, root: Path | None = None, host: str = "db.example") -> Settings:
    return Settings(postgres_host=host, postgres_sslmode=mode, postgres_sslrootcert=root)


def context(mode: SslMode, root: Path | None = None) -> ssl.SSLContext:
    argument = ssl_argument(settings(mode, root))
    assert isinstance(argument, ssl.SSLContext)
    return argument


def test_disable_uses_no_tls_and_prefer_and_allow_are_passed_to_the_driver() -> None:
    assert ssl_argument(settings(SslMode.DISABLE)) is False
    assert ssl_argument(settings(SslMode.ALLOW)) == "allow"
    assert ssl_argument(settings(SslMode.PREFER)) == "prefer"


@pytest.mark.parametrize("mode", SslMode)
def test_a_socket_never_uses_tls(mode: SslMode, tmp_path: Path) -> None:
    assert ssl_argument(settings(mode, tmp_path / "no-ca.crt", host="/run/postgresql")) is False


def test_require_verifies_only_with_a_root_certificate(ca: Path) -> None:
    assert context(SslMode.REQUIRE).verify_mode is ssl.CERT_NONE
    assert context(SslMode.REQUIRE, ca).verify_mode is ssl.CERT_REQUIRED
    assert context(SslMode.REQUIRE, ca).check_hostname is False


@pytest.mark.parametrize(("mode", "name_too"), [(SslMode.VERIFY_CA, False), (SslMode.VERIFY_FULL, True)])
def test_verify_checks_the_chain_and_only_full_the_name(mode: SslMode, name_too: bool, ca: Path) -> None:
    for root in (ca, None):
        made = context(mode, root)
        assert made.verify_mode is ssl.CERT_REQUIRED
        assert made.check_hostname is name_too


def test_only_the_given_root_is_trusted(ca: Path) -> None:
    assert len(context(SslMode.VERIFY_FULL, ca).get_ca_certs()) == 1


@pytest.mark.parametrize("mode", [SslMode.REQUIRE, SslMode.VERIFY_CA, SslMode.VERIFY_FULL])
def test_nothing_older_than_tls_1_2(mode: SslMode) -> None:
    assert context(mode).minimum_version >= ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("content", [None, "no certificate", ""])
def test_an_unusable_root_certificate_is_a_configuration_error(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.crt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DatabaseError, match=f"POSTGRES_SSLROOTCERT: cannot use {path}") as raised:
        context(SslMode.VERIFY_FULL, path)
    assert raised.value.code is ExitCode.CONFIGURATION
