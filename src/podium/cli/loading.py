"""What `podium load` asks and how it tells what came of it. Called by `commands.load`; calls `podium.load`.

From a target and options to a job, and from what was found to a document and to a picture of the latencies.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from podium.cli.display import clean, coloured, size
from podium.cli.inputs import inputs_of, metadata
from podium.load.bounds import NotAllowed
from podium.load.wire import NOT_TRUSTED, WANTS_A_CERTIFICATE
from podium.resources.errors import InvalidInput, Issue, Refused

if TYPE_CHECKING:
    from podium.cli.session import Session
    from podium.client import Client
    from podium.load.generator import Found

_BODIES = 64
_PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}
_NEXT_STEPS = {
    NOT_TRUSTED: "--ca FILE names who signed it",
    WANTS_A_CERTIFICATE: "--client-cert FILE and --client-key FILE name it",
}
_BARS = 12
_WIDTH = 40


@dataclass(frozen=True)
class Asked:
    """Where to, with whose token, and with what."""

    url: str
    token: str | None
    bodies: Sequence[bytes]


def of_deployment(session: "Session", name: str, given: tuple[str, str] | None) -> Asked:
    """A Deployment or Route by its name, through the gateway that the client knows, with the client's token.

    `given`: inputs as JSON, and where they come from; None: made up from what the model says that it takes.
    """
    from podium.client.prediction import tensor
    from podium.load.bodies import made_up_bodies

    with session.client() as client:
        place = _place(client, name, session.place)
        takes = metadata(client, name, session.place).get("inputs") or []
        if given is None:
            if not takes:
                raise InvalidInput(
                    Issue("TARGET", f"{name} does not say what it takes"), next_step="give --input or --body"
                )
            try:
                bodies = made_up_bodies(takes, _BODIES)
            except ValueError as error:
                raise InvalidInput(Issue("TARGET", str(error)), next_step="give --input or --body") from None
            return Asked(f"{place}/infer", client.connection.token, bodies)
        found = inputs_of(client, name, session.place, *given, option="--input")
        if isinstance(found, Mapping):
            known = {str(item["name"]): str(item["datatype"]) for item in takes}
            found = [tensor(key, value, known) for key, value in found.items()]
        return Asked(f"{place}/infer", client.connection.token, [_json({"inputs": found})])


def of_url(session: "Session", url: str, bodies: Sequence[bytes]) -> Asked:
    """An address. Podium's token goes with it only where it was given on the command line, or to Podium's gateway."""
    return Asked(url, session.token or _token_for(session, url), bodies)


def deployment_url(session: "Session", name: str) -> Asked:
    """As `of_deployment`, for a body that is given as it is."""
    with session.client() as client:
        return Asked(f"{_place(client, name, session.place)}/infer", client.connection.token, [])


def _token_for(session: "Session", url: str) -> str | None:
    try:
        with session.client() as client:
            gateway, token = client.connection.gateway, client.connection.token
    except (Refused, InvalidInput):
        return None  # no Podium is known here: the address is somebody else's
    return token if gateway and _origin(gateway) == _origin(url) else None


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    try:
        return parts.scheme, parts.hostname or "", parts.port
    except ValueError:
        return parts.scheme, "", None


def _place(client: "Client", name: str, workspace: str) -> str:
    gateway = client.connection.gateway
    if gateway is None:
        raise InvalidInput(Issue("gateway", "no gateway is known"), next_step="set PODIUM_GATEWAY_URL")
    prefix = "" if workspace == "default" else f"/ws/{quote(workspace, safe='')}"
    return f"{gateway}{prefix}/v2/models/{quote(name, safe='')}"


def _json(document: Any) -> bytes:
    import json

    return json.dumps(document, separators=(",", ":")).encode()


def refused(error: NotAllowed) -> InvalidInput:
    """As the command line tells errors."""
    return InvalidInput(Issue(error.field, str(error)), next_step=error.next_step or None)


def document(found: "Found", wish: Mapping[str, Any]) -> dict[str, Any]:
    """For -o json. `wish`: what was asked for, put first. Latencies in seconds, null without any."""
    took = found.latencies
    classes = {f"{first}xx": 0 for first in range(1, 6)}
    for status, count in found.statuses.items():
        name = f"{status // 100}xx"
        classes[name] = classes.get(name, 0) + count
    latency: dict[str, float | None] = {
        name: took.quantile(share) if took.count else None for name, share in _PERCENTILES.items()
    }
    latency |= {
        "min": took.least if took.count else None,
        "mean": took.total / took.count if took.count else None,
        "max": took.most if took.count else None,
    }
    return {
        **wish,
        "seconds": found.seconds,
        "requests": {
            "sent": found.sent, "answered": found.answered, "failed": found.failed, "unsent": found.unsent,
        },
        "requestsPerSecond": found.answered / found.seconds if found.seconds else 0.0,
        "statuses": {str(status): count for status, count in sorted(found.statuses.items())},
        "classes": {name: count for name, count in classes.items() if count},
        "errors": dict(found.errors.most_common()),
        "samples": {str(status): text for status, text in sorted(found.samples.items())},
        "bytesReceived": found.received,
        "latency": latency,
        "histogram": [{"from": low, "to": high, "count": count} for low, high, count in bars(found)],
        "generatorBusy": round(found.busy, 3),
    }  # fmt: skip


def bars(found: "Found") -> list[tuple[float, float, int]]:
    """The latencies in a dozen ranges, each as many times longer than the one before: from, to (seconds), how many."""
    took = found.latencies
    if not took.count:
        return []
    low = max(took.least, 1e-6)
    factor = max(1.02, (max(took.most, low) / low * 1.001) ** (1 / _BARS))
    rows, edge, left = [], low, took.count
    for number in range(_BARS):
        upper = low * factor ** (number + 1)
        last = number == _BARS - 1 or upper > took.most
        count = left if last else took.between(0.0 if number == 0 else edge, upper)
        rows.append((edge, upper, count))
        left -= count
        edge = upper
        if last:
            break
    return rows


def show(found: "Found", wish: Mapping[str, Any]) -> None:
    """For people."""
    told = document(found, wish)
    answered, latency = told["requests"]["answered"], told["latency"]
    asked = (
        f"{told['connections']} connection{'s' * (told['connections'] != 1)}"
        if told["rate"] is None
        else f"{told['rate']:,g} requests/s on up to {told['connections']} connections"
    )
    print(f"{clean(told['target'])}: {asked}, {found.seconds:.1f} s{', interrupted' * told['interrupted']}")
    rate = coloured(f"{told['requestsPerSecond']:,.1f} requests/s", "bold")
    print(f"{answered:,} answers, {rate}, {size(found.received)} received")
    if found.latencies.count:
        names = [*_PERCENTILES, "max"]
        labels = {"p999": "p99.9"}
        print("  ".join(f"{labels.get(name, name)} {duration(float(latency[name] or 0))}" for name in names))
        print()
        _draw(bars(found))
        print()
    if found.statuses:
        print(
            "statuses  "
            + "  ".join(f"{status}: {count:,}" for status, count in sorted(found.statuses.items()))
        )
    for words, count in found.errors.most_common(10):
        print(f"{coloured('failed', 'red')}    {count:,} x {clean(words)}")
    for words, step in _NEXT_STEPS.items():
        if any(error.startswith(words) for error in found.errors):
            print(f"next      {step}")
    for status, text in sorted(found.samples.items()):
        print(f"{status}       {clean(text)[:200]}")
    if found.unsent:
        print(
            f"{coloured('unsent', 'yellow')}    {found.unsent:,} requests were due and found no free connection; "
            "they are in the latencies with the time that they had waited"
        )
    if found.busy > 0.9:
        print(
            f"{coloured('note', 'yellow')}      the generator was busy for {found.busy:.0%} of the time: it may be the "
            "bottleneck, not what it asks; give --processes"
        )


def _draw(rows: Sequence[tuple[float, float, int]]) -> None:
    most = max(count for _, _, count in rows)
    total = sum(count for _, _, count in rows)
    for low, high, count in rows:
        filled = math.ceil(_WIDTH * count / most) if count else 0
        share = f"{count / total:7.2%}" if count else ""
        print(f"{duration(low):>9} - {duration(high):<9} {'#' * filled:<{_WIDTH}} {share:>8}".rstrip())


def duration(seconds: float) -> str:
    """`850 us`, `3.21 ms`, `1.24 s`."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} us"
    return f"{seconds * 1e3:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"


def progress_words(found: "Found") -> str:
    """What is known so far, on a line."""
    failed = f", {found.failed:,} failed" if found.failed else ""
    rate = found.answered / found.seconds if found.seconds else 0.0
    return (
        f"{found.answered:,} answers, {rate:,.0f}/s, p99 {duration(found.latencies.quantile(0.99))}{failed}"
    )
