#!/usr/bin/python3
"""occupancy-certificate REQUEST: converge the server's certificate and its CAs, and say how long they last.

REQUEST is the file that role tls writes, for the scheduled job, or the same as JSON, for the role. The role
passes the operator's certificate, if there is one, on standard input, and gets the result as JSON. Runs as
root on the host.

A year before a CA ends it gets a successor. While both are valid, ca.crt has both, and the server's
certificate is followed by the signing CA's certificate signed by the other one: who trusts either connects.
No CA is deleted: a clock that was wrong for a while does no damage.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import psycopg2
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_DAYS = 3650
SUCCESSOR_DAYS = 365
"""Days before the end of a CA at which its successor is made."""
HANDOVER_DAYS = 90
"""Days before the end of a CA at which its successor signs. The CAs of older releases allow no intermediate.
RFC 5280 does not count a certificate of the same name as one; clients that do need the new ca.crt by then."""

CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
Validity = tuple[datetime, datetime]
EARLIER = timedelta(days=1)
"""Certificates start earlier than now, for clients whose clocks are behind."""

RELOAD = """
    SELECT pg_reload_conf() WHERE date_trunc('second', pg_conf_load_time())
        <= (pg_stat_file(current_setting('ssl_cert_file'))).modification
"""


@dataclass(frozen=True)
class Authority:
    """A CA with its key."""

    certificate: x509.Certificate
    key: Any


def main(argument: str) -> int:
    """Converge, print the outcome, and return the exit code."""
    by_role = argument.startswith("{")
    request = json.loads(argument if by_role else Path(argument).read_text(encoding="utf-8"))
    now = datetime.now(timezone.utc)  # noqa: UP017 - Python 3.10 has no UTC
    result: dict[str, Any] = {"changed": [], "warnings": [], "ca": ""}
    if (cas := Path(request["dir"], "ca")).is_dir():  # not in a check of a new host
        fcntl.flock(os.open(cas, os.O_RDONLY), fcntl.LOCK_EX)  # role and job follow each other
    if by_role and request["operator"]:
        result["changed"] = install(request, json.loads(sys.stdin.read()))
    elif not request["operator"]:
        result["changed"] = converge(request, now)
    trusted = Path(request["dir"]) / "tls/ca.crt"
    if trusted.exists() and trusted.with_name("server.pem").exists():
        result["ca"] = trusted.read_text(encoding="utf-8")
        result |= report(request, now)
    if by_role:
        print(json.dumps(result))
        return 0
    for level, lines in ((5, result["changed"]), (4, result["warnings"])):
        for line in lines:
            print(f"<{level}>{line}")
    print(result["days"])
    return reload(request["run_dir"])


def converge(request: dict[str, Any], now: datetime) -> list[str]:
    """Make what is missing of the product's own CAs and certificate, and return what was done.

    With `check` in the request, only say it.
    """
    directory, check = Path(request["dir"]), request.get("check", False)
    valid = [
        each
        for each in authorities(directory / "ca")
        if start(each.certificate) <= now < end(each.certificate)
    ]
    done = []
    if not valid or end(valid[-1].certificate) < now + timedelta(days=SUCCESSOR_DAYS):
        done.append(
            "a CA was created" if not valid else "the CA ends within a year: its successor was created"
        )
        valid.append(create_authority(request, valid, now))
        if not check:
            keep_authority(directory / "ca", valid[-1], now)
    lasting = [each for each in valid if end(each.certificate) >= now + timedelta(days=HANDOVER_DAYS)]
    signer = lasting[0]
    others = [each for each in valid if each is not signer]
    reason = (
        "it is replaced on request" if request.get("renew") else outdated(request, signer, len(others), now)
    )
    if reason:
        if not check:
            write(directory / "tls/server.pem", issue(request, signer, others, now), 0o600, request["uid"])
        done.append(f"a server certificate was issued: {reason}")
    bundle = "".join(pem(each.certificate) for each in valid)
    published = directory / "tls/ca.crt"
    if not published.exists() or published.read_text(encoding="utf-8") != bundle:
        if not check:
            write(published, bundle, 0o644)
        done.append(f"{published} was written")
    return done


def authorities(directory: Path) -> list[Authority]:
    """The CAs of the host, the one that ends last at the end. Ends the program if one cannot be used."""
    found = []
    for path in directory.glob("ca*.crt"):
        try:
            certificate = x509.load_pem_x509_certificate(path.read_bytes())
            key = serialization.load_pem_private_key(path.with_suffix(".key").read_bytes(), None)
            if key.public_key().public_numbers() != certificate.public_key().public_numbers():
                raise ValueError("the key is that of another certificate")  # cryptography 38 compares no keys
        except (OSError, ValueError) as error:
            advice = "Bring both back from a copy, or move them away: a new CA is made then, for all clients"
            sys.exit(f"The CA {path} and its key cannot be used: {error}. {advice}.")
        found.append(Authority(certificate, key))
    return sorted(found, key=lambda each: end(each.certificate))


def create_authority(request: dict[str, Any], valid: list[Authority], now: datetime) -> Authority:
    """A new CA. It has the name of the one before, whose successor does not count as an intermediate then."""
    key = ec.generate_private_key(ec.SECP256R1())
    common_name = x509.NameAttribute(NameOID.COMMON_NAME, f"Occupancy database CA of {request['name'][:36]}")
    name = valid[-1].certificate.subject if valid else x509.Name([common_name])
    until = now + timedelta(days=CA_DAYS)
    certificate = sign_authority(
        name, key.public_key(), 1, (now - EARLIER, until), Authority(None, key), name
    )
    return Authority(certificate, key)


def sign_authority(
    name: x509.Name, key: Any, length: int, validity: Validity, signer: Authority, issuer: x509.Name
) -> x509.Certificate:
    """The certificate of a CA; `length` is how many CAs may follow it."""
    usage = dict.fromkeys(
        ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
         "encipher_only", "decipher_only"], False,
    )  # fmt: skip
    builder = certificate_builder(name, issuer, key, signer.key.public_key(), validity)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=length), critical=True)
    builder = builder.add_extension(x509.KeyUsage(**usage, key_cert_sign=True, crl_sign=True), critical=True)
    return builder.sign(signer.key, hashes.SHA256())


def certificate_builder(
    subject: x509.Name, issuer: x509.Name, key: Any, signing_key: Any, validity: Validity
) -> x509.CertificateBuilder:
    """What every certificate has. Two CAs of one name differ by the identifiers of their keys."""
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(validity[0])
        .not_valid_after(validity[1])
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(identifier, critical=False)
    )


def keep_authority(directory: Path, authority: Authority, now: datetime) -> None:
    """Write a new CA; the key first, since a CA is known by its certificate."""
    stem = "ca" if not (directory / "ca.crt").exists() else f"ca-{now:%Y%m%d%H%M%S}"
    write(directory / f"{stem}.key", private_pem(authority.key), 0o600)
    write(directory / f"{stem}.crt", pem(authority.certificate), 0o644)


def outdated(request: dict[str, Any], signer: Authority, others: int, now: datetime) -> str:
    """Why the server's certificate must be issued, or the empty string."""
    path = Path(request["dir"]) / "tls/server.pem"
    try:
        leaf, *chain = certificates(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return "there was none that can be read"
    left = end(leaf) - now
    status = path.stat()
    if not issued_by(leaf, signer):
        return "another CA signs"
    if len(chain) != others:
        return "the CAs that it leads to have changed"
    if names_of(leaf) != wanted_names(request):
        return "its names differ"
    if start(leaf) > now:
        return "it is not valid yet"
    # A new one would not be valid for longer where the CA's end is near.
    later = min(now + timedelta(days=request["days"]), end(signer.certificate)) > end(leaf) + timedelta(
        days=1
    )
    if left < timedelta(days=request["renew_days"]) and later:
        return f"{max(left.days, 0)} days were left"
    if (status.st_uid, status.st_mode & 0o777) != (request["uid"], 0o600):
        return "its file had another owner or mode"
    return ""


def issued_by(certificate: x509.Certificate, authority: Authority) -> bool:
    """Whether a CA of the product has signed the certificate."""
    if certificate.issuer != authority.certificate.subject:
        return False
    algorithm = ec.ECDSA(certificate.signature_hash_algorithm or hashes.SHA256())
    try:
        key = authority.key.public_key()
        key.verify(certificate.signature, certificate.tbs_certificate_bytes, algorithm)
    except InvalidSignature:
        return False
    return True


def issue(request: dict[str, Any], signer: Authority, others: Iterable[Authority], now: datetime) -> str:
    """A new key and its certificate, followed by the signer's certificates by the other CAs."""
    key = ec.generate_private_key(ec.SECP256R1())
    own = signer.certificate
    validity = (now - EARLIER, min(now + timedelta(days=request["days"]), end(own)))
    names = [
        x509.DNSName(value) if kind == "dns" else x509.IPAddress(ip_address(value))
        for kind, value in wanted_names(request)
    ]
    usage = dict.fromkeys(
        ["content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign",
         "crl_sign", "encipher_only", "decipher_only"], False,
    )  # fmt: skip
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, request["name"][:64])])
    builder = certificate_builder(subject, own.subject, key.public_key(), own.public_key(), validity)
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    builder = builder.add_extension(x509.KeyUsage(digital_signature=True, **usage), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    chain = [builder.sign(signer.key, hashes.SHA256())]
    for other in others:
        both = (max(start(own), start(other.certificate)), min(end(own), end(other.certificate)))
        issuer = other.certificate.subject
        chain.append(sign_authority(own.subject, own.public_key(), 0, both, other, issuer))
    return "".join(pem(each) for each in chain) + private_pem(key)


def install(request: dict[str, Any], offered: dict[str, str]) -> list[str]:
    """Install the operator's certificate, key and CA, which preflight has checked; return what was done."""
    directory = Path(request["dir"]) / "tls"
    wanted = [
        (directory / "ca.crt", offered["ca"], 0o644, 0),
        (directory / "server.pem", offered["pair"], 0o600, request["uid"]),
    ]
    done = []
    for path, text, mode, uid in wanted:
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        if not request.get("check"):
            write(path, text, mode, uid)
        done.append(f"{path} was written from the operator's certificate")
    return done


def report(request: dict[str, Any], now: datetime) -> dict[str, Any]:
    """Write the metrics, and say how many days are left, and what ends soon."""
    directory = Path(request["dir"]) / "tls"
    leaf = certificates((directory / "server.pem").read_text(encoding="utf-8"))[0]
    trusted = certificates((directory / "ca.crt").read_text(encoding="utf-8"))
    ends = {"server": end(leaf), "ca": min(map(end, trusted))}
    days = {name: (moment - now).days for name, moment in ends.items()}
    warnings = []
    if request["operator"] and days["server"] < request["renew_days"]:
        warnings.append(
            f"the operator's certificate ends in {days['server']} days, at {ends['server']:%Y-%m-%d}"
        )
    if days["ca"] < SUCCESSOR_DAYS:
        what = "" if request["operator"] else ": give clients the new ca.crt, which has its successor too"
        warnings.append(f"the CA ends in {days['ca']} days, at {ends['ca']:%Y-%m-%d}{what}")
    metrics = Path(request["data_dir"]) / "metrics"
    if not request.get("check") and metrics.is_dir():
        write(metrics / "occupancy_tls.prom", metric_text(ends, days), 0o644)
    said = f"days left: {days['server']} of the server's certificate, {days['ca']} of the CA"
    return {"warnings": warnings, "days": said}


def metric_text(ends: dict[str, datetime], days: dict[str, int]) -> str:
    """The metrics: the end, which does not age with the file, and the days that are left."""
    seconds = {name: int(moment.timestamp()) for name, moment in ends.items()}
    lines = []
    for name, meaning, found in (
        ("occupancy_tls_not_after_timestamp_seconds", "End of the certificate.", seconds),
        ("occupancy_tls_days_left", "Days until then at the last run of the job.", days),
    ):
        lines += [f"# HELP {name} {meaning}", f"# TYPE {name} gauge"]
        lines += [f'{name}{{certificate="{which}"}} {value}' for which, value in found.items()]
    return "\n".join(lines) + "\n"


def reload(sockets: str) -> int:
    """Let the server load a certificate that is newer than its configuration; return the exit code."""
    options = {"user": "postgres", "dbname": "postgres", "application_name": "occupancy-certificate"}
    try:
        connection = psycopg2.connect(host=sockets, connect_timeout=10, **options)
    except psycopg2.OperationalError as error:
        print(
            f"<4>the server does not answer, and loads the certificate when it starts: {str(error).strip()}"
        )
        return 0
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(RELOAD)
            if cursor.rowcount:
                print("<5>the server has loaded its files again")
    finally:
        connection.close()
    return 0


def certificates(text: str) -> list[x509.Certificate]:
    """All certificates of a PEM file."""
    return [x509.load_pem_x509_certificate(each.encode()) for each in CERTIFICATE.findall(text)]


def names_of(certificate: x509.Certificate) -> set[tuple[str, str]]:
    """The names and addresses of a certificate, in the form of wanted_names."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    names = {("dns", name.lower()) for name in found.get_values_for_type(x509.DNSName)}
    return names | {("ip", str(address)) for address in found.get_values_for_type(x509.IPAddress)}


def wanted_names(request: dict[str, Any]) -> set[tuple[str, str]]:
    """The names and addresses of the request; an address has one form, however it was written."""
    found = set()
    for name in request["names"]:
        try:
            found.add(("ip", str(ip_address(name))))
        except ValueError:
            found.add(("dns", name.lower()))
    return found


def start(certificate: x509.Certificate) -> datetime:
    """From when a certificate is valid."""
    return moment(certificate, "not_valid_before")


def end(certificate: x509.Certificate) -> datetime:
    """Until when a certificate is valid."""
    return moment(certificate, "not_valid_after")


def moment(certificate: x509.Certificate, name: str) -> datetime:
    """A date of a certificate; releases of cryptography before 42 know those without a time zone only."""
    zoned = hasattr(certificate, f"{name}_utc")
    found: datetime = getattr(certificate, f"{name}_utc" if zoned else name)
    return found.replace(tzinfo=timezone.utc)  # noqa: UP017 - Python 3.10 has no UTC


def pem(certificate: x509.Certificate) -> str:
    """A certificate as text."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def private_pem(key: Any) -> str:
    """A private key as text."""
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()  # type: ignore[no-any-return]


def write(path: Path, text: str, mode: int, uid: int = 0) -> None:
    """Replace a file in one step. Its new content is beside it, for its owner alone, and never elsewhere."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        if (os.geteuid(), uid) != (uid, os.geteuid()):
            os.fchown(file.fileno(), uid, uid)
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())
    new.replace(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
