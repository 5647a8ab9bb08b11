"""TLS for the API: a context that new connections are made with, and that learns of renewed files by itself.

Called by `server`. An open connection goes on with the certificate that it began with.
"""

import datetime
import logging
import ssl
import tempfile
import threading
from pathlib import Path

from podium.gateway.certificates import Certificate, Watched, read_certificate
from podium.gateway.settings import CertificateFiles
from podium.resources.errors import Refused

_log = logging.getLogger("podium.tls")
_LOOK_SECONDS = 1.0


class RenewedContext:
    """`context` is for the server, and shows the newest good certificate of the files between `start` and `stop`.

    Raises Refused when there is none at the beginning. `scratch`: a folder that only we can enter.
    """

    def __init__(self, files: CertificateFiles, scratch: Path) -> None:
        self._scratch = scratch
        self._watched = Watched(files)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="certificate", daemon=True)
        first = self._watched.take(_now()) or read_certificate(files, _now())
        self.context = self._newest = self._made(first)
        # Each handshake asks which certificate to show. To change that of the context itself would be two steps, chain
        # and key, and a handshake between them would fail.
        self.context.sni_callback = self._choose

    def start(self) -> None:
        """Look at the files from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Do not look any more."""
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        said = ""
        while not self._stop.wait(_LOOK_SECONDS):
            found = self._watched.take(_now())
            if found is not None:
                try:
                    self._newest = self._made(found)
                    _log.info("the certificate is good until %s", found.ends)
                except (Refused, OSError) as error:
                    self._watched.refuse(str(error))
            if self._watched.problem and self._watched.problem != said:
                _log.error("%s", self._watched.problem)
            said = self._watched.problem

    def _choose(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        connection.context = self._newest

    def _made(self, found: Certificate) -> ssl.SSLContext:
        """From a file of ours, because the two that were checked may be others by now."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        made.set_alpn_protocols(["http/1.1"])
        with tempfile.NamedTemporaryFile(dir=self._scratch, suffix=".pem") as file:
            file.write(found.key + b"\n" + found.chain)
            file.flush()
            try:
                made.load_cert_chain(file.name)
            except ssl.SSLError as error:
                raise Refused(f"OpenSSL does not take the certificate: {error}") from None
        return made


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
