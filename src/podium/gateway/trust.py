"""Which certificates of the API an agent takes. Called by `main`; calls `resources.trust`."""

from podium.gateway.settings import GatewaySettings
from podium.resources.trust import Trust, exactly, signed_by


def trust_of(settings: GatewaySettings) -> Trust | None:
    """As the settings say; None where the system's own certificates decide, or no TLS is spoken. Raises InvalidInput
    for a file of an authority that cannot be read."""
    if not settings.server_url.startswith("https://"):
        return None
    if settings.server_certificate is not None:
        own = exactly(settings.server_certificate)
        # Whoever renews it may be writing it just now.
        own.renew()
        return own
    return None if settings.server_ca is None else signed_by(settings.server_ca).read("server_ca")
