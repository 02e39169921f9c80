"""Translate libpq's sslmode to the ``ssl`` argument of asyncpg.

Source of the rules: PostgreSQL documentation, "34.19. SSL Support", table "SSL Mode Descriptions".
"""

import ssl
from typing import Literal

from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.settings import Settings, SslMode

SslArgument = ssl.SSLContext | Literal[False, "allow", "prefer"]


def ssl_argument(settings: Settings) -> SslArgument:
    """The ``ssl`` argument of ``asyncpg.connect`` for these settings.

    - disable, and any Unix socket: no TLS.
    - allow, prefer: passed on, because only asyncpg can retry with a second connection.
    - require: TLS without verification; with a root certificate as verify-ca.
    - verify-ca: the chain must end in the root certificate, or in a CA that the system trusts.
    - verify-full: as verify-ca, and the certificate must contain the host name.

    Raises:
        DatabaseError: the root certificate cannot be read (exit code 3).
    """
    mode = settings.sslmode
    if settings.uses_socket or mode is SslMode.DISABLE:
        return False
    if mode is SslMode.ALLOW:
        return "allow"
    if mode is SslMode.PREFER:
        return "prefer"

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = mode is SslMode.VERIFY_FULL
    root = settings.postgres_sslrootcert
    if root is not None:
        try:
            context.load_verify_locations(cafile=root)
        except OSError as error:  # ssl.SSLError, for a file that is no certificate, is an OSError too
            reason = "not a PEM certificate" if isinstance(error, ssl.SSLError) else error.strerror
            raise DatabaseError(
                ExitCode.CONFIGURATION,
                f"POSTGRES_SSLROOTCERT: cannot use {root}: {reason}",
                "Set it to the file of the CA certificate that signed the server's certificate.",
            ) from None
    elif mode is SslMode.REQUIRE:
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_default_certs()
    return context
