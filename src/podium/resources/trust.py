"""Whose certificates a client takes: those that somebody known has signed, or one certificate and no other.

Called by `client` and by the gateway's agent. Reads PEM files; what it makes is for anybody who speaks TLS.
"""

import ssl
from pathlib import Path
from typing import Self

from podium.resources.errors import InvalidInput, Issue


class Trust:
    """An SSL context, and the file that it learns from. Knows nothing of the file until `read` or `renew`."""

    def __init__(self, context: ssl.SSLContext, file: Path) -> None:
        self.context = context
        self._file = file

    def read(self, field: str) -> Self:
        """Take in what the file holds now. Raises InvalidInput for `field` where that is no certificate."""
        try:
            self.context.load_verify_locations(cafile=self._file)
        except (OSError, ssl.SSLError) as error:
            words = f"{self._file}: expected certificates in PEM: {error.strerror}"
            raise InvalidInput(Issue(field, words)) from None
        return self

    def renew(self) -> None:
        """Take in what the file holds now, beside what it held before: the other side may still be with one of these,
        when the new one is no good. What was taken out of the file is trusted as long as this process lives."""
        try:
            self.context.load_verify_locations(cafile=self._file)
        except (OSError, ssl.SSLError):
            # Half written, or away for the moment: what is known already stays, and the next failure looks again.
            return


def usual(*addresses: str | None) -> ssl.SSLContext | bool:
    """How httpx is to check where nothing is said: by the system's authorities, if one of the addresses is https."""
    https = any(one is not None and one.lower().startswith("https:") for one in addresses)
    return True if https else nobody()


def nobody() -> ssl.SSLContext:
    """Takes no certificate at all: for addresses that are not https. To read the system's authorities takes 70 ms, and
    httpx does so for every client, whatever its address is, unless it is given a context."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def signed_by(file: Path) -> Trust:
    """The system's authorities and those of the file; names count."""
    return Trust(ssl.create_default_context(), file)


def exactly(file: Path) -> Trust:
    """The certificate in the file and no other, so its name says nothing more; whoever signed it need not be known."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return Trust(context, file)
