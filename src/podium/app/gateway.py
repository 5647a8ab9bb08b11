"""The gateway's entry point: `python -m podium.app gateway`. Makes the gateway's settings and waits for its token."""

import time

from podium.app.settings import Settings, private_folder
from podium.gateway import main
from podium.gateway.settings import GatewaySettings
from podium.resources.errors import Unavailable

_TOKEN_WAIT = 120.0


def run(settings: Settings, *, alone: bool = False) -> None:
    """Run the agent and its Envoy until a signal says otherwise (see `podium.gateway.main`)."""
    private_folder(settings.sockets)
    main.run(gateway_settings(settings, token=_token(settings)), alone=alone)


def gateway_settings(settings: Settings, *, token: str | None) -> GatewaySettings:
    """This installation's gateway."""
    own = settings.api_certificate if settings.server_url is None else None
    return GatewaySettings(
        home=settings.home / "gateway",
        name=settings.gateway_name,
        server_url=settings.server_url or settings.api_url,
        host="127.0.0.1" if settings.gateway_host == "localhost" else settings.gateway_host,
        port=settings.gateway_port,
        token=token,
        run_folder=settings.sockets / "gw",
        metrics_port=settings.gateway_metrics_port,
        notice=float(settings.gateway_notice),
        record=settings.gateway_record,
        memory=settings.gateway_memory,
        certificate=settings.gateway_certificate,
        server_ca=settings.server_ca,
        # Its names are for others: what this machine calls the API may not be among them.
        server_certificate=own.chain if own else settings.server_certificate,
    )


def _token(settings: Settings) -> str:
    """The server makes the token at its first start; until then there is nothing to route either."""
    deadline = time.monotonic() + _TOKEN_WAIT
    while time.monotonic() < deadline:
        try:
            return settings.gateway_token_file.read_text().strip()
        except FileNotFoundError:
            time.sleep(0.1)
    raise Unavailable(
        f"{settings.gateway_token_file} did not appear", next_step=f"look into {settings.logs / 'server.log'}"
    )
