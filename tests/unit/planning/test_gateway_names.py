"""Whose reports count under a gateway's name."""

import datetime

import pytest

from podium.planning.gateways import SILENT_LIMIT, GatewayInstance, may_report

KNOWN = GatewayInstance("home-1", "start-1", "host-1", 11)
AGAIN = GatewayInstance("home-1", "start-2", "host-1", 12)
OTHER = GatewayInstance("home-2", "start-3", "host-2", 13)
LIVE, GONE = datetime.timedelta(seconds=1), SILENT_LIMIT + datetime.timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("given", "former", "silence", "may"),
    [
        (KNOWN, (), LIVE, True),
        (KNOWN, (), GONE, True),
        (AGAIN, (), LIVE, True),
        (AGAIN, ("start-2",), LIVE, False),
        (AGAIN, ("start-2",), GONE, True),
        (OTHER, (), LIVE, False),
        (OTHER, (), SILENT_LIMIT, False),
        (OTHER, (), GONE, True),
        (OTHER, (), -LIVE, False),
    ],
)
def test_who_may_report(
    given: GatewayInstance, former: tuple[str, ...], silence: datetime.timedelta, may: bool
) -> None:
    assert may_report(given, KNOWN, former, silence) is may
