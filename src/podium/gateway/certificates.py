"""A certificate and its key, as their files say: read whole, checked, and taken only when they fit each other.

Called by `loader` (the first one) and `agent` (renewals), which import it where there is TLS (it takes a tenth of a
second), and by `podium.app` for the API's own. A file that is half
written, another's key, or a certificate whose time is over is told in words and changes nothing: what was in force
stays.
"""

import datetime
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from podium.gateway.settings import CertificateFiles
from podium.resources.errors import Refused

_LARGEST = 2**20
_SHORTEST_RSA = 2048


@dataclass(frozen=True)
class Certificate:
    """A chain with the key that fits its first certificate, as PEM."""

    chain: bytes
    key: bytes = field(repr=False)
    ends: datetime.datetime
    """When its first certificate expires, in UTC."""


def read_certificate(files: CertificateFiles, now: datetime.datetime) -> Certificate:
    """What the files hold now. Raises Refused that names the file and what is wrong with it."""
    chain, key = _read(files.chain), _read(files.key, private=True)
    try:
        certificates = x509.load_pem_x509_certificates(chain)
    except ValueError:
        raise _refused(files.chain, "expected certificates in PEM, the server's own first") from None
    private = _private_key(files.key, key)
    own = certificates[0]
    try:
        fits = _public(own.public_key()) == _public(private.public_key())
    except (ValueError, UnsupportedAlgorithm):
        raise _refused(
            files.chain, "its key is of a kind that is not known here: RSA or a NIST curve"
        ) from None
    if not fits:
        raise _refused(files.key, f"this is not the key of the certificate in {files.chain}")
    if own.not_valid_after_utc <= now:
        raise _refused(files.chain, f"the certificate expired {own.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
    return Certificate(chain, key, own.not_valid_after_utc)


def _read(path: Path, *, private: bool = False) -> bytes:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise _refused(path, f"cannot be read: {error.strerror}") from None
    if private and mode & stat.S_IROTH:
        raise Refused(f"{path} can be read by everybody", next_step=f"chmod o-rwx {path}")
    if len(content) > _LARGEST:
        raise _refused(path, f"expected at most {_LARGEST} bytes")
    return content


def _private_key(path: Path, content: bytes) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    try:
        private = serialization.load_pem_private_key(content, password=None)
    except TypeError:
        raise _refused(path, "expected a key without a passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise _refused(path, "expected a private key in PEM, of RSA or a NIST curve") from None
    if isinstance(private, rsa.RSAPrivateKey):
        if private.key_size < _SHORTEST_RSA:
            raise _refused(
                path, f"expected an RSA key of at least {_SHORTEST_RSA} bits, got {private.key_size}"
            )
        return private
    if isinstance(private, ec.EllipticCurvePrivateKey):
        return private
    raise _refused(path, "expected an RSA or an ECDSA key, as all clients know them")


def _public(key: object) -> bytes:
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        return b""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _refused(path: Path, what: str) -> Refused:
    return Refused(f"{path}: {what}", next_step="put a certificate chain and its key there, as PEM")


class Watched:
    """Two files that are looked at again and again. `take` gives what is new and good; `problem` says what is wrong."""

    def __init__(self, files: CertificateFiles) -> None:
        self._files = files
        self._seen: tuple[bytes, bytes] | None = None
        self.problem = ""
        """Why what the files hold now is not in force; empty where it is."""

    def take(self, now: datetime.datetime) -> Certificate | None:
        """A certificate that was not there at the last call; None where nothing changed, or what came is no good."""
        try:
            if (_read(self._files.chain), _read(self._files.key)) == self._seen:
                self.problem = ""
                return None
            found = read_certificate(self._files, now)
        except Refused as error:
            self.refuse(error.message)
            return None
        self._seen, self.problem = (found.chain, found.key), ""
        return found

    def again(self) -> None:
        """What `take` gave is to be given once more."""
        self._seen = None

    def refuse(self, words: str) -> None:
        """What `take` gave was not put in force after all."""
        self.problem = f"the certificate in force stays: {words}"
