"""Which certificates of the API an agent takes. Called by `main`, used by `server_api`."""

import ssl
from pathlib import Path

from podium.gateway.settings import GatewaySettings
from podium.resources.errors import Refused


class Trust:
    """An SSL context, and how it learns of a renewed certificate."""

    def __init__(self, context: ssl.SSLContext, own: Path | None = None) -> None:
        self.context = context
        self._own = own
        self.renew()

    def renew(self) -> None:
        """Takes the certificate that the file holds now, beside the ones before: the server may still be with one of
        these, when the new one is no good."""
        if self._own is None:
            return
        try:
            self.context.load_verify_locations(cafile=self._own)
        except (OSError, ssl.SSLError):
            # Half written, or away for the moment: what is known already stays, and the next failure looks again.
            return


def trust_of(settings: GatewaySettings) -> Trust | None:
    """As the settings say; None where the system's own certificates decide, or no TLS is spoken. Raises Refused for a
    file of an authority that cannot be read."""
    if not settings.server_url.startswith("https://"):
        return None
    if settings.server_certificate is not None:
        # That certificate and no other, so its name says nothing more; whoever signed it need not be known here.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return Trust(context, settings.server_certificate)
    if settings.server_ca is None:
        return None
    try:
        context = ssl.create_default_context()
        context.load_verify_locations(cafile=settings.server_ca)
    except (OSError, ssl.SSLError) as error:
        raise Refused(
            f"{settings.server_ca}: {error}", next_step="name a file of certificates in PEM"
        ) from None
    return Trust(context)
