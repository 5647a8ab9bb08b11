"""What `podium route test` says of a request, and what a real Envoy does with it: random Routes, random requests."""

import http.client
import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import ValidationError

from podium.gateway.render.access import AccessRules
from podium.planning.route_test import tell
from podium.planning.routes import RoutePlan
from podium.resources.claims import OWN, as_text
from podium.resources.route_test import RouteTestRequest
from tests.integration.gateway.published import PublishedEnvoy, entry_of, planned, published_envoy
from tests.integration.gateway.signing import Signer
from tests.integration.gateway.upstreams import Reply, says, upstreams

ROUTES, REQUESTS = 100, 8
RULES, VARIANTS = 4, 4
TEXTS = ("gold", "golden", "GOLD", "old", "g", "", "a b", "x,y", 'q"', "(", "gold;silver", "a\\b", "é", "É")
NAMES = ("x-a", "x-b", "x-c")
PATHS = (
    "",
    "/",
    "/infer",
    "/infer/",
    "/infer2",
    "/invocations",
    "/a.b",
    "/aXb",
    "/generate_stream",
    "/x%20y",
    "/~!$&'()*,;=:@",
)
QUERIES = ("gold", "golden", "", "a+b", "a%20b", "g%6Fld", "x=y", "gold;q=b", '"', "?")
REGEXES = ("g.*", "gold|old", "(?i)gold", "[a-z]+", ".", "..", ".*", "[^;]*;.*", "\\(", "é", "[é]", "(?i)É")
PATH_REGEXES = ("/in.*", "/a.b", "/a\\.b|/infer", ".*", "/[a-z]+/?", "")
USERS = [f"u-{number}" for number in range(12)] + ["é", "", "a;b", "x%y", "$1\\1"]


@dataclass
class Site:
    envoy: PublishedEnvoy
    wire: http.client.HTTPConnection
    signer: Signer
    plans: list[RoutePlan]


def text_match(draw: random.Random, texts: tuple[str, ...], regexes: tuple[str, ...]) -> Any:
    kind = draw.choice(("exact", "exact", "prefix", "suffix", "contains", "regex", "present"))
    if kind == "present":
        return {"present": draw.random() < 0.5}
    if kind == "regex":
        return {"regex": draw.choice([one for one in regexes if one])}
    text = draw.choice([one for one in texts if one or kind == "exact"])
    return text if kind == "exact" and draw.random() < 0.5 else {kind: text}


def path_match(draw: random.Random) -> dict[str, str]:
    while True:
        found = text_match(draw, PATHS, PATH_REGEXES)
        found = {"exact": found} if isinstance(found, str) else found
        if "present" not in found:
            return dict(found)


def match(draw: random.Random) -> dict[str, Any]:
    claims = {"tier": TEXTS[:5], "team": TEXTS[:5], "sub": ("u", "v"), "role": ("predict", "view")}
    made: dict[str, Any] = {}
    while not made:
        if draw.random() < 0.3:
            made["path"] = path_match(draw)
        if draw.random() < 0.4:
            made["headers"] = {
                name: text_match(draw, TEXTS, REGEXES) for name in draw.sample(NAMES, draw.choice((1, 1, 2)))
            }
        if draw.random() < 0.3:
            made["query"] = {
                name: text_match(draw, QUERIES, REGEXES)
                for name in draw.sample(("q", "r"), draw.choice((1, 2)))
            }
        if draw.random() < 0.4:
            name = draw.choice(list(claims))
            wanted = text_match(draw, claims[name], REGEXES)
            made["claims"] = {
                name: {"present": True} if name in OWN and wanted == {"present": False} else wanted
            }
    return made


def weights(draw: random.Random, count: int) -> list[float]:
    """Basis points that fit the slots of a sticky rule: the first has at least half."""
    rest = [draw.choice((0, 1, 500, 1666, 1250)) for _ in range(count - 1)]
    return [(10_000 - sum(rest)) / 100, *(one / 100 for one in rest)]


def rule(draw: random.Random, number: int, *, last: bool) -> dict[str, Any]:
    count = draw.choice((1, 2, 3, VARIANTS))
    shares = weights(draw, count)
    made: dict[str, Any] = {
        "name": f"rule-{number}",
        "to": [{"deployment": f"d-{number}-{place}", "weight": share} for place, share in enumerate(shares)],
    }
    if not last or draw.random() < 0.5:
        made["match"] = match(draw)
    if draw.random() < 0.7:
        made["sticky"] = draw.choice(
            ({"header": "x-user"}, {"cookie": "uid"}, {"claim": "sub"}, {"claim": "user"}, {"header": "x-a"})
        )
    if draw.random() < 0.3:
        made["fallback"] = {"deployments": ["next"]}
    return made


def request(draw: random.Random) -> RouteTestRequest:
    headers = {name: draw.choice(TEXTS) for name in NAMES if draw.random() < 0.6}
    if draw.random() < 0.7:
        headers["x-user"] = draw.choice(USERS)
    if draw.random() < 0.7:
        user = draw.choice(USERS).replace(";", "")
        headers["cookie"] = draw.choice(
            (f"uid={user}", f"xuid=no; uid={user}", f"uid={user};y=1", "other=1", "uid=a; uid=b")
        )
    query = {name: draw.choice(QUERIES) for name in ("q", "r") if draw.random() < 0.5}
    claims = {"sub": draw.choice(("u", "v")), "role": "predict", "jti": "t1"}
    claims |= {name: draw.choice(TEXTS[:5]) for name in ("tier", "team") if draw.random() < 0.5}
    if draw.random() < 0.6:
        claims["user"] = draw.choice(USERS[:12])
    return RouteTestRequest(path=draw.choice(PATHS), headers=headers, query=query, claims=claims)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    draw = random.Random(20)
    with upstreams() as started, published_envoy() as envoy:
        names = [f"d-{number}-{place}" for number in range(RULES) for place in range(VARIANTS)] + ["next"]
        entries = {name: entry_of(name, (started.start(name, says({"by": name})), 100)) for name in names}
        seen = started.start("path", lambda got: Reply(body=json.dumps({"path": got.path}).encode()))
        plans = []
        for number in range(ROUTES):
            count = draw.randint(1, RULES)
            rules = [rule(draw, place, last=place == count - 1) for place in range(count)]
            plans.append(planned(f"route-{number}", *rules, entries=entries))
        signer = Signer()
        plans.append(planned("whole", {"to": "path"}, entries={"path": entry_of("path", (seen, 100))}))
        envoy.serve(plans, AccessRules.parse(signer.access()))
        wire = http.client.HTTPConnection("127.0.0.1", envoy.settings.port, timeout=60)
        yield Site(envoy, wire, signer, plans[:-1])
        wire.close()


def asked(site: Site, plan: RoutePlan, wanted: RouteTestRequest) -> str | None:
    """The Deployment that answers; None where it is 404."""
    own = {name: wanted.claims[name] for name in OWN}
    given = {name: value for name, value in wanted.claims.items() if name not in OWN}
    more: dict[str, Any] = {"claims": given, "claimed": as_text(given)} if given else {}
    token = site.signer.token(**{**own, **more})
    query = "&".join(f"{name}={value}" for name, value in wanted.query.items())
    target = f"/v2/models/{plan.route}{wanted.path}{'?' if query else ''}{query}"
    status, said = sent(site, target, {**wanted.headers, "authorization": f"Bearer {token}"})
    assert status in (200, 404), (plan.route, wanted, said)
    return str(said["by"]) if status == 200 else None


def sent(site: Site, target: str, headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
    """Byte for byte: a client for people would tidy the target up."""
    site.wire.putrequest("GET", target)
    for name, value in headers.items():
        site.wire.putheader(name, value.encode())
    site.wire.endheaders()
    answer = site.wire.getresponse()
    return answer.status, dict(json.loads(answer.read()))


def test_what_is_told_is_what_happens(site: Site) -> None:
    draw = random.Random(21)
    met = Counter[str]()
    wrong = []
    for plan in site.plans:
        for _ in range(REQUESTS):
            wanted = request(draw)
            told = tell(plan, wanted)
            by = asked(site, plan, wanted)
            expected = {one.deployment for one in told.answering}
            if (by is None) != (told.rule is None) or (by is not None and by not in expected):
                wrong.append(
                    (
                        plan.route,
                        [(r.name, r.match, r.sticky) for r in plan.rules],
                        wanted,
                        sorted(expected),
                        by,
                    )
                )
            met["none" if told.rule is None else "certain" if len(expected) == 1 else "drawn"] += 1
            met["sticky"] += told.sticky.endswith("of 100")
    for one in wrong[:6]:
        print(*one, sep="\n  ")
    assert not wrong, f"{len(wrong)} of {ROUTES * REQUESTS}"
    # Requests of all kinds were among them.
    assert min(met[kind] for kind in ("none", "certain", "drawn", "sticky")) > 40, met


PIECES = ("a", "b", "/", "/", ".", "..", "/./", "/../", "%41", "%2e", "%2E", "%7e", "%20", "%22", "%zz", "%", "%c3%a9",
          "\\", '"', "<", "{", "|", "^", "`", "'", "[", "~", ";", "=", ":", "versions", "%2f", "%5C", "%00",
          "//")  # fmt: skip


def test_a_path_is_what_the_gateway_makes_of_it_or_is_refused(site: Site) -> None:
    draw = random.Random(22)
    authorization = {"authorization": f"Bearer {site.signer.token()}"}
    met = Counter[str]()
    for _ in range(500):
        path = "/" + "".join(draw.choice(PIECES) for _ in range(draw.randint(0, 6)))
        status, said = sent(site, f"/v2/models/whole{path}", authorization)
        found = said["path"].removeprefix("/v2/models/-") if status == 200 else status
        try:
            RouteTestRequest(path=path)
            words = ""
        except ValidationError as error:
            words = str(error)
        if not words:
            assert found == path
            met["taken"] += 1
        elif "the gateway makes" in words:
            assert f"the gateway makes {found} of it" in words, (path, words)
            met["another"] += 1
        else:
            assert status in (400, 403, 404) or "two hexadecimal digits" in words, (path, words, found)
            met["refused"] += 1
    assert min(met[kind] for kind in ("taken", "another", "refused")) > 30, met
