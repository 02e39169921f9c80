"""The certificates of a host: their renewal, the step from one CA to the next, and the operator's own."""

import json
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trustme
from cryptography import x509

from provisioning import certificates
from provisioning.variables import ROLES

SCRIPT = ROLES / "tls/files/occupancy-certificate.py"
NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)


def load() -> ModuleType:
    spec = spec_from_file_location("occupancy_certificate", SCRIPT)
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


job = load()


@pytest.fixture
def request_(tmp_path: Path) -> dict[str, Any]:
    """The request of role tls, for a host whose directories are in a temporary one."""
    for name in ("ca", "tls", "metrics"):
        (tmp_path / name).mkdir()
    return {
        "dir": str(tmp_path), "data_dir": str(tmp_path), "run_dir": str(tmp_path),
        "uid": tmp_path.stat().st_uid, "name": "home",
        "names": ["home", "localhost", "127.0.0.1", "0:0:0:0:0:0:0:1"], "days": 825, "renew_days": 275,
        "operator": False,
    }  # fmt: skip


def leaf_and_chain(request: dict[str, Any]) -> list[x509.Certificate]:
    found: list[x509.Certificate] = job.certificates((Path(request["dir"]) / "tls/server.pem").read_text())
    return found


def days_left(request: dict[str, Any], now: datetime) -> int:
    left: timedelta = job.end(leaf_and_chain(request)[0]) - now
    return left.days


def bundle(request: dict[str, Any]) -> list[x509.Certificate]:
    found: list[x509.Certificate] = job.certificates((Path(request["dir"]) / "tls/ca.crt").read_text())
    return found


# Renewal


def test_a_new_host_gets_a_ca_and_a_certificate_and_then_nothing(request_: dict[str, Any]) -> None:
    assert job.converge(request_, NOW) == [
        "a CA was created",
        "a server certificate was issued: there was none that can be read",
        f"{request_['dir']}/tls/ca.crt was written",
    ]
    assert job.converge(request_, NOW) == []
    files = Path(request_["dir"]).glob("*/*")
    modes = {str(path.relative_to(request_["dir"])): path.stat().st_mode & 0o777 for path in files}
    assert modes == {"ca/ca.key": 0o600, "ca/ca.crt": 0o644, "tls/server.pem": 0o600, "tls/ca.crt": 0o644}


@pytest.mark.parametrize(("days", "renewed"), [(549, False), (551, True), (826, True)])
def test_a_certificate_is_renewed_when_a_third_of_its_life_is_left(
    request_: dict[str, Any], days: int, renewed: bool
) -> None:
    job.converge(request_, NOW)
    before = leaf_and_chain(request_)
    done = job.converge(request_, NOW + days * DAY)
    assert bool(done) is renewed
    assert (leaf_and_chain(request_) != before) is renewed
    assert bundle(request_) == job.certificates((Path(request_["dir"]) / "ca/ca.crt").read_text())


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"names": ["home", "new.example"]}, "its names differ"), ({"renew": True}, "on request")],
)
def test_a_certificate_is_issued_again_for_another_name_or_on_request(
    request_: dict[str, Any], change: dict[str, Any], reason: str
) -> None:
    job.converge(request_, NOW)
    before = leaf_and_chain(request_)
    (said,) = job.converge(request_ | change | {"check": True}, NOW)
    assert reason in said
    assert leaf_and_chain(request_) == before
    assert job.converge(request_ | change, NOW) == [said]
    assert leaf_and_chain(request_) != before


def test_a_certificate_from_a_clock_that_was_wrong_is_replaced(request_: dict[str, Any]) -> None:
    job.converge(request_, NOW)
    first = bundle(request_)
    job.converge(request_, NOW + 8000 * DAY)
    assert bundle(request_) != first
    assert job.converge(request_, NOW) != []
    assert bundle(request_) == first
    assert job.converge(request_, NOW) == []


def test_a_wrong_mode_is_put_right(request_: dict[str, Any]) -> None:
    job.converge(request_, NOW)
    path = Path(request_["dir"]) / "tls/server.pem"
    path.chmod(0o644)
    assert job.converge(request_, NOW) != []
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_days_that_are_left_are_metrics_and_output(request_: dict[str, Any]) -> None:
    job.converge(request_, NOW)
    said = job.report(request_, NOW)
    assert said == {"warnings": [], "days": "days left: 825 of the server's certificate, 3650 of the CA"}
    metrics = (Path(request_["dir"]) / "metrics/occupancy_tls.prom").read_text()
    assert 'occupancy_tls_days_left{certificate="server"} 825\n' in metrics
    assert 'occupancy_tls_days_left{certificate="ca"} 3650\n' in metrics
    end = int((NOW + 825 * DAY).timestamp())
    assert f'occupancy_tls_not_after_timestamp_seconds{{certificate="server"}} {end}\n' in metrics


def test_the_job_runs_from_its_file_and_says_that_no_server_answers(
    request_: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "request.json"
    file.write_text(json.dumps(request_))
    done = subprocess.run([sys.executable, SCRIPT, file], capture_output=True, text=True, check=True)
    assert "<5>a server certificate was issued: there was none that can be read\n" in done.stdout
    assert "days left: 824 of the server's certificate, 3649 of the CA\n" in done.stdout
    assert "<4>the server does not answer, and loads the certificate when it starts" in done.stdout


# From one CA to the next


def old_authority(request: dict[str, Any], now: datetime) -> None:
    """A CA as release 0.1.0 made it: no further CA may follow it."""
    key = job.ec.generate_private_key(job.ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(job.NameOID.COMMON_NAME, "Occupancy database CA of home")])
    signer = job.Authority(None, key)
    validity = (now - DAY, now + 3650 * DAY)
    certificate = job.sign_authority(name, key.public_key(), 0, validity, signer, name)
    job.keep_authority(Path(request["dir"]) / "ca", job.Authority(certificate, key), now)


def verifies(request: dict[str, Any], trusted: list[x509.Certificate], now: datetime) -> bool:
    """Whether openssl, with these CAs alone, verifies what the server sends."""
    directory = Path(request["dir"])
    (directory / "trusted").write_text("".join(map(job.pem, trusted)))
    server = directory / "tls/server.pem"
    command = [
        "openssl",
        "verify",
        "-x509_strict",
        "-no-CApath",
        "-purpose",
        "sslserver",
        "-verify_hostname",
        "localhost",
    ]
    command += [
        "-attime",
        str(int(now.timestamp())),
        "-CAfile",
        str(directory / "trusted"),
        "-untrusted",
        str(server),
    ]
    done = subprocess.run([*command, str(server)], capture_output=True, text=True, check=False)
    return done.returncode == 0


@pytest.mark.parametrize("existing", [True, False], ids=["CA of 0.1.0", "CA of this release"])
def test_clients_of_the_old_and_of_the_new_ca_connect_for_a_year(
    request_: dict[str, Any], existing: bool
) -> None:
    if existing:
        old_authority(request_, NOW)
    job.converge(request_, NOW)
    (old,) = bundle(request_)
    # The job runs each day, and nothing else does; every tenth day is enough here.
    seen = set()
    for day in range(3200, 3640, 10):
        now = NOW + day * DAY
        job.converge(request_, now)
        trusted = bundle(request_)
        assert old in trusted
        assert verifies(request_, [old], now)
        assert verifies(request_, trusted, now)
        for new in trusted:
            assert verifies(request_, [new], now)
        seen.add(
            (
                len(trusted),
                job.issued_by(leaf_and_chain(request_)[0], job.authorities(Path(request_["dir"]) / "ca")[0]),
            )
        )
    # First alone, then with its successor beside it, then with the successor as the one that signs
    assert seen == {(1, True), (2, True), (2, False)}
    after = NOW + 3651 * DAY
    job.converge(request_, after)
    assert old not in bundle(request_)
    assert len(leaf_and_chain(request_)) == 1
    assert verifies(request_, bundle(request_), after)


def test_the_end_of_the_ca_is_announced_a_year_before(request_: dict[str, Any]) -> None:
    job.converge(request_, NOW)
    now = NOW + (3650 - 366) * DAY
    job.converge(request_, now)
    assert job.report(request_, now)["warnings"] == []
    now += 2 * DAY
    assert "the CA ends within a year: its successor was created" in job.converge(request_, now)
    (warning,) = job.report(request_, now)["warnings"]
    assert "the CA ends in 364 days" in warning
    assert "give clients the new ca.crt" in warning


def test_a_host_that_was_off_for_years_has_a_valid_certificate_at_once(request_: dict[str, Any]) -> None:
    job.converge(request_, NOW)
    now = NOW + 5000 * DAY
    job.converge(request_, now)
    assert verifies(request_, bundle(request_), now)
    assert days_left(request_, now) == 825


def handshake(request: dict[str, Any], trusted: str) -> str:
    """A TLS handshake of Python's ssl, which asyncpg uses, with the certificate as it is on disk."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(Path(request["dir"]) / "tls/server.pem")
    client = ssl.create_default_context(cadata=trusted)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            plain, _ = listener.accept()
            with plain:
                server.wrap_socket(plain, server_side=True).close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        plain = socket.create_connection(listener.getsockname())
        with client.wrap_socket(plain, server_hostname="localhost") as encrypted:
            version = encrypted.version()
        thread.join(10)
    return str(version)


@pytest.mark.parametrize("left", [300, 60], ids=["the old CA signs", "the new CA signs"])
def test_a_handshake_succeeds_with_either_ca_alone(request_: dict[str, Any], left: int) -> None:
    old_authority(request_, NOW - (3650 - left) * DAY)
    job.converge(request_, NOW)
    certificates_of_both = bundle(request_)
    assert len(certificates_of_both) == 2
    for each in certificates_of_both:
        assert handshake(request_, job.pem(each)) == "TLSv1.3"


# The operator's own


@pytest.fixture
def own(tmp_path: Path) -> Callable[..., list[str]]:
    """own(authority, …) issues a certificate and returns the paths of certificate, key and CA."""

    def issue(authority: trustme.CA, root: trustme.CA, name: str = "home", days: int = 90) -> list[str]:
        home = tmp_path / "operator"
        home.mkdir(exist_ok=True)
        now = datetime.now(UTC)
        issued = authority.issue_cert(name, not_before=now - 9 * DAY, not_after=now + days * DAY)
        paths = [home / "server.crt", home / "server.key", home / "root.crt"]
        paths[0].write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(paths[1])
        root.cert_pem.write_to_path(paths[2])
        return [str(path) for path in paths]

    return issue


def expire(certificate: x509.Certificate, authority: trustme.CA) -> str:
    """The same certificate of a CA, as text, if it had ended yesterday."""
    name = x509.load_pem_x509_certificate(authority.cert_pem.bytes()).subject
    builder = x509.CertificateBuilder(
        name, certificate.subject, certificate.public_key(), certificate.serial_number,
        NOW - 90 * DAY, NOW - DAY, list(certificate.extensions),
    )  # fmt: skip
    key = job.serialization.load_pem_private_key(authority.private_key_pem.bytes(), None)
    return str(job.pem(builder.sign(key, job.hashes.SHA256())))


NAMES = ["home", "localhost"]


def test_an_operators_chain_is_accepted_or_refused_with_the_reason(own: Callable[..., list[str]]) -> None:
    root = trustme.CA()
    assert certificates.find_problems(own(root, root), NAMES, {}) == []
    assert certificates.find_problems(own(root.create_child_ca(), root), NAMES, {}) == []
    assert certificates.find_problems(own(root, root, name="*.example"), NAMES, {}) == []
    bad = own(trustme.CA(), root, name="elsewhere.example", days=-1)
    Path(bad[1]).write_bytes(root.issue_cert("home").private_key_pem.bytes())
    (said,) = certificates.find_problems(bad, NAMES, {})
    for flaw in ("not the key", "It expired", "not issued by", "It is for elsewhere.example"):
        assert flaw in said


def test_an_expired_intermediate_is_refused(own: Callable[..., list[str]]) -> None:
    root = trustme.CA()
    paths = own(root.create_child_ca(), root)
    leaf, middle = job.certificates(Path(paths[0]).read_text())
    Path(paths[0]).write_text(job.pem(leaf) + expire(middle, root))
    (said,) = certificates.find_problems(paths, NAMES, {})
    assert "which issued it, is valid from" in said


def test_a_missing_intermediate_and_an_unreadable_file_are_refused(own: Callable[..., list[str]]) -> None:
    root = trustme.CA()
    paths = own(root.create_child_ca(), root)
    chain = Path(paths[0]).read_text()
    Path(paths[0]).write_text(chain[: chain.index("-----END") + len("-----END CERTIFICATE-----\n")])
    (said,) = certificates.find_problems(paths, NAMES, {})
    assert "nor by an intermediate" in said
    Path(paths[1]).write_text("no key")
    (said,) = certificates.find_problems(paths, NAMES, {})
    assert "cannot be read" in said


def test_the_whole_chain_of_an_operator_converges_and_is_taken_back(
    request_: dict[str, Any], own: Callable[..., list[str]]
) -> None:
    root = trustme.CA()
    job.converge(request_, NOW)
    operated = request_ | {"operator": True}
    middle = root.create_child_ca()
    assert len(job.install(operated, certificates.offered(own(middle, root)))) == 2
    paths = own(middle, root)
    offered = certificates.offered(paths)
    assert len(job.install(operated, offered)) == 1
    assert job.install(operated, offered) == []
    # Another intermediate under the same certificate, and another CA
    certificate, key = offered["pair"].split("-----BEGIN EC", 1)
    other = offered | {"pair": f"{certificate}{root.cert_pem.bytes().decode()}-----BEGIN EC{key}"}
    assert len(job.install(operated, other)) == 1
    assert len(job.install(operated, other | {"ca": trustme.CA().cert_pem.bytes().decode()})) == 1
    assert (Path(request_["dir"]) / "tls/server.pem").stat().st_mode & 0o777 == 0o600
    # What is in service does not keep a run from something else.
    job.install(operated, offered)
    assert any("another CA signs" in each for each in job.converge(request_, NOW))
    assert verifies(request_, bundle(request_), NOW)


def test_the_operators_certificate_and_ca_are_announced(
    request_: dict[str, Any], own: Callable[..., list[str]]
) -> None:
    root = trustme.CA()
    operated = request_ | {"operator": True, "renew_days": 100}
    job.install(operated, certificates.offered(own(root, root)))
    (warning,) = job.report(operated, datetime.now(UTC))["warnings"]
    assert "the operator's certificate ends in 89 days" in warning
