"""Certificates for tests: an authority of their own, and what it signs."""

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from podium.gateway.settings import CertificateFiles

DAY = datetime.timedelta(days=1)


class Authority:
    """Signs certificates for 127.0.0.1 and localhost. `file` is its own, for clients."""

    def __init__(self, folder: Path, name: str = "tests") -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        own = self._build(self._name, self._key.public_key(), DAY).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        self.file = folder / "authority.pem"
        self.file.write_bytes(own.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def _build(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, lifetime: datetime.timedelta
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        start = now - DAY if lifetime > datetime.timedelta(0) else now + 2 * lifetime
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(now + lifetime)
        )

    def issue(
        self, lifetime: datetime.timedelta = DAY, *, names: tuple[str, ...] = ("localhost",)
    ) -> "Issued":
        """A new certificate with a key of its own; a negative `lifetime` is one that is over."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        known: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
        if "localhost" in names:
            known.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
        built = self._build(subject, key.public_key(), lifetime).add_extension(
            x509.SubjectAlternativeName(known), critical=False
        )
        signed = built.sign(self._key, hashes.SHA256())
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Issued(signed.public_bytes(serialization.Encoding.PEM), pem, signed.serial_number)


class Issued:
    """A certificate, its key, and the number that tells it from others."""

    def __init__(self, chain: bytes, key: bytes, serial: int) -> None:
        self.chain, self.key, self.serial = chain, key, serial

    def write(self, folder: Path) -> CertificateFiles:
        """In place as whoever renews it does it: one file after the other, each by rename."""
        files = CertificateFiles(folder / "tls.crt", folder / "tls.key")
        for path, content in ((files.chain, self.chain), (files.key, self.key)):
            put(path, content)
        return files


def put(path: Path, content: bytes) -> None:
    """A file that only its owner can read, by rename."""
    draft = path.with_suffix(".new")
    draft.touch(mode=0o600)
    draft.write_bytes(content)
    draft.replace(path)
