"""The operator's own certificate: what role tls installs, and why clients would refuse it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def offered(paths: Sequence[str]) -> dict[str, str]:
    """The files that the server gets: `pair`, certificates and key in one file, and `ca`.

    Args:
        paths: Of the certificate with its intermediates, the private key, and the CA's certificate.
    """
    certificate, key, ca = (Path(path).read_text(encoding="utf-8") for path in paths)
    return {"pair": f"{certificate.strip()}\n{key.strip()}\n", "ca": ca}


def find_problems(paths: Sequence[str], names: Iterable[str], host: Mapping[str, Any]) -> list[str]:
    """Why the operator's certificate cannot be used; nothing if the host has it already.

    One that has expired in service does not keep a run from doing something else.

    Args:
        paths: Of certificate, private key and CA certificate.
        names: tls_names.
        host: The facts of the host.
    """
    try:
        texts = [Path(path).read_text(encoding="utf-8") for path in paths]
        pair = offered(paths)["pair"]
        present = host.get("files", {}).get("/opt/occupancy/tls/server.pem", {})
        ca = host.get("files", {}).get("/opt/occupancy/tls/ca.crt", {})
        if (present.get("sha256"), ca.get("sha256")) == (_sha256(pair), _sha256(texts[2])):
            return []
        problems = _problems(texts, {_plain(name) for name in names}, datetime.now(UTC))
    except (OSError, ValueError, TypeError) as error:
        problems = [f"The files cannot be read: {error}."]
    return [f"The certificate {paths[0]} cannot be used: {' '.join(problems)}"] if problems else []


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _problems(texts: list[str], wanted: set[str], now: datetime) -> list[str]:
    certificate, key, ca = texts
    chain = _certificates(certificate)
    roots = _certificates(ca)
    if not chain or not roots:
        return ["tls_certificate and tls_ca_certificate must be PEM files with a certificate."]
    leaf = chain[0]
    problems = []
    if leaf.public_key() != serialization.load_pem_private_key(key.encode(), None).public_key():
        problems.append("tls_private_key is not the key that the certificate was made for.")
    if leaf.not_valid_before_utc > now:
        problems.append(f"It is not valid before {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC.")
    if leaf.not_valid_after_utc <= now:
        problems.append(f"It expired at {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC.")
    problems += _chain_problems(chain, roots, now)
    names = _names(leaf)
    if not names & wanted and not any(name.startswith("*.") for name in names):
        said = ", ".join(sorted(names)) or "no name at all"
        problems.append(f"It is for {said}, which is none of {', '.join(sorted(wanted))} (tls_names).")
    return problems


def _chain_problems(chain: list[x509.Certificate], roots: list[x509.Certificate], now: datetime) -> list[str]:
    """What breaks the way from the certificate through its intermediates to the CA."""
    current, rest = chain[0], chain[1:]
    while True:
        above = [each for each in (*roots, *rest) if _issued(current, each)]
        if not above:
            name = current.subject.rfc4514_string()
            return [f"It was not issued by tls_ca_certificate, nor by an intermediate beside it ({name})."]
        valid = [each for each in above if each.not_valid_before_utc <= now < each.not_valid_after_utc]
        if not valid:
            return [
                f"{above[0].subject.rfc4514_string()}, which issued it, is valid from "
                f"{above[0].not_valid_before_utc:%Y-%m-%d} to {above[0].not_valid_after_utc:%Y-%m-%d}."
            ]
        if valid[0] in roots:
            return []
        current = valid[0]
        rest = [each for each in rest if each != current]


def _issued(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        constraints = authority.extensions.get_extension_for_class(x509.BasicConstraints).value
        certificate.verify_directly_issued_by(authority)
    except (x509.ExtensionNotFound, InvalidSignature, TypeError, ValueError):
        return False
    return bool(constraints.ca)


def _certificates(text: str) -> list[x509.Certificate]:
    return [x509.load_pem_x509_certificate(each.encode()) for each in BLOCK.findall(text)]


def _names(certificate: x509.Certificate) -> set[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    addresses = {str(address) for address in found.get_values_for_type(x509.IPAddress)}
    return addresses | {name.lower() for name in found.get_values_for_type(x509.DNSName)}


def _plain(name: str) -> str:
    """A name in lower case, or an address in its short form."""
    try:
        return str(ip_address(name))
    except ValueError:
        return name.lower()
