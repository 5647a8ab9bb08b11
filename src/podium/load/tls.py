"""How a server with TLS is known, and how it may know us. Called by `bounds` (for a job) and `__main__` (its context).

Files are named, not read, until the process that asks has its job: private keys stay where they are.
"""

import ssl
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Tls:
    """Paths of PEM files. Nothing given: as the system knows servers."""

    authorities: str | None = None
    """Who may have signed the server's certificate, beside those that the system knows."""
    exactly: str | None = None
    """The server's very certificate; no other is taken, and its names say nothing."""
    insecure: bool = False
    """Any certificate is taken."""
    certificate: str | None = None
    """Our own, for servers that want one of their clients."""
    key: str | None = None
    """Its private key; None: in the same file."""

    def document(self, name: str) -> dict[str, Any]:
        """For `Job.place`; `name`: of the server."""
        return {"name": name, **asdict(self)}


def context_of(document: Mapping[str, Any]) -> ssl.SSLContext:
    """What `Tls.document` made. Raises OSError that names the file which cannot be read or is none of these."""
    tls = Tls(**{name: value for name, value in document.items() if name != "name"})
    if tls.exactly is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    else:
        context = ssl.create_default_context()
    file = tls.exactly or tls.authorities
    try:
        if file is not None:
            context.load_verify_locations(cafile=file)
        if tls.certificate is not None:
            file = tls.certificate
            # Without a passphrase OpenSSL would ask the terminal for one.
            context.load_cert_chain(tls.certificate, tls.key, password=lambda: "")
    except OSError as error:
        raise OSError(error.errno, _words(error), file) from None
    if tls.insecure:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _words(error: OSError) -> str:
    if not isinstance(error, ssl.SSLError):
        return error.strerror or str(error)
    known = {
        "NO_CERTIFICATE_OR_CRL_FOUND": "holds no certificate in PEM",
        "KEY_VALUES_MISMATCH": "its private key is another one's",
        "BAD_DECRYPT": "its private key has a passphrase",
        "BAD_PASSWORD_READ": "its private key has a passphrase",
    }
    return known.get(
        error.reason or "", f"is no certificate with its key in PEM: {error.reason or error.strerror}"
    )
