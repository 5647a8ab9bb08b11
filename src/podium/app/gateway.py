"""The gateway's entry point: `python -m podium.app gateway`. Makes the gateway's settings and waits for its token."""

import time

from podium.app.settings import Settings, private_folder
from podium.gateway import main
from podium.gateway.settings import GatewaySettings
from podium.resources.errors import Unavailable

_TOKEN_WAIT = 120.0


def run(settings: Settings) -> None:
    """Run the agent and its Envoy until a signal says otherwise (see `podium.gateway.main`)."""
    private_folder(settings.home)
    private_folder(settings.sockets)
    main.run(gateway_settings(settings, token=_token(settings)))


def gateway_settings(settings: Settings, *, token: str | None) -> GatewaySettings:
    """This installation's gateway."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.api_host, settings.api_host)  # noqa: S104 - to reach it
    return GatewaySettings(
        home=settings.home / "gateway",
        name=settings.gateway_name,
        server_url=f"http://{f'[{host}]' if ':' in host else host}:{settings.api_port}",
        host="127.0.0.1" if settings.gateway_host == "localhost" else settings.gateway_host,
        port=settings.gateway_port,
        token=token,
        run_folder=settings.sockets / "gw",
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
