"""A shadow beside its champion, for real: every mirrored request is found on both sides, compared once, and kept."""

import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from podium.analysis.divergence import judge
from podium.control.comparisons import Comparing
from podium.resources.comparison import DivergenceLimits
from tests.integration.control.shadowed import ACTOR, Site, shadowed
from tests.integration.gateway.conftest import until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform != "linux", reason="replicas as processes need Linux"),
]
MODEL = """
import numpy as np
class Model:
    signature = {{"inputs": [{{"name": "x", "datatype": "FP64", "shape": [-1]}}],
                 "outputs": [{{"name": "label", "datatype": "BYTES", "shape": [-1]}},
                             {{"name": "score", "datatype": "FP64", "shape": [-1]}}]}}
    def predict(self, inputs):
        x = inputs["x"]
        if {fails}:
            raise ValueError("the shadow alone")
        odd = x % {modulus} == 0
        return {{"label": np.where(odd, "odd", "even").astype(object), "score": x * {factor} + 1}}
"""
SOURCES = {
    "champion": MODEL.format(modulus=2, factor=1, fails="False"),
    # Differs at every tenth number, in a fifth more, and fails at every fiftieth.
    "shadow": MODEL.format(modulus=2, factor=1.2, fails="(x % 50 == 49).any()").replace(
        "odd = x % 2 == 0", "odd = (x % 2 == 0) & (x % 10 != 0)"
    ),
}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with shadowed(tmp_path, Path(sys.executable), SOURCES) as made:
        yield made


def ask(site: Site, number: float) -> httpx.Response:
    body = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [number]}]}
    answer = site.envoy.client.post("/v2/models/public/infer", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-podium-revision"] == "champion-00001"
    return answer


def distance(number: float) -> float:
    one, other = number + 1, number * 1.2 + 1
    return abs(one - other) / (abs(one) + abs(other))


def test_every_mirrored_request_is_found_compared_once_and_kept(site: Site) -> None:
    numbers = [float(number) for number in range(200)]
    ids = [ask(site, number).headers["x-request-id"] for number in numbers]
    assert len(set(ids)) == 200
    for name in ("champion", "shadow"):
        until(lambda name=name: len(site.ids(name)) >= 200, 60)
        assert sorted(site.ids(name)) == sorted(ids), name
    comparing = site.comparing()
    comparing.look()
    found = site.comparison()
    failing = [number for number in numbers if number % 50 == 49]
    both = [number for number in numbers if number % 50 != 49]
    assert (found.pairs, found.shadow_failed, found.champion_failed) == (len(both), len(failing), 0)
    assert (found.unmatched_champion, found.unmatched_shadow, found.lost) == (0, 0, 0)
    assert found.sources == ["Route public rule 0"]
    assert found.message == ""
    label, score = found.per_output
    differing = [number for number in both if number % 10 == 0]
    assert (label.name, label.kind, label.mismatched) == ("label", "class", 0)
    assert label.agreement == pytest.approx(1 - len(differing) / len(both))
    assert (score.name, score.kind) == ("score", "number")
    assert score.mean_distance == pytest.approx(np.mean([distance(number) for number in both]))
    assert label.interval[0] < 0.9 < label.interval[1]
    shown = {example.request_id for example in found.examples}
    assert shown <= {ids[int(number)] for number in differing}
    assert {example.champion for example in found.examples} == {'["odd"]'}
    assert judge(found, DivergenceLimits(agreement=0.99)).outcome == "fail"
    outcome = judge(found, DivergenceLimits(agreement=0.8, distance=0.3, failures=0.2))
    assert outcome.outcome == "pass", outcome.reason

    # Another server, as after a restart: it goes on, and counts nothing twice.
    comparing = site.comparing()
    comparing.look()
    assert site.comparison().pairs == len(both)
    ids.append(ask(site, 3.0).headers["x-request-id"])
    until(lambda: _looked(comparing, site) == len(both) + 1, 60)
    site.comparing().look()
    assert site.comparison().pairs == len(both) + 1

    # Nobody asks for copies any more, and no server ran meanwhile: what is known stays, and says so.
    ids.append(ask(site, 3.0).headers["x-request-id"])
    until(lambda: len(site.ids("shadow")) == len(site.ids("champion")) == len(ids), 60)
    with site.store.write(ACTOR) as tx:
        tx.request_deletion(site.route.uid)
    site.comparing().look()
    assert site.comparison().sources == []
    assert site.comparison().pairs == len(both) + 2
    comparing.look()
    assert site.comparison().pairs == len(both) + 2


def _looked(comparing: Comparing, site: Site) -> int:
    comparing.look()
    return site.comparison().pairs


def test_a_replica_that_writes_nonsense_and_sends_links_harms_nobody(site: Site, tmp_path: Path) -> None:
    for number in range(20):
        ask(site, float(number))
    until(lambda: len(site.ids("champion")) >= 20 and len(site.ids("shadow")) >= 20, 60)
    folder = next((tmp_path / "replicas" / site.revisions["shadow"].uid).glob("*/tmp/podium-records"))
    secret = tmp_path / "secret"
    secret.write_text('{"id":"leaked"}\n' * 10)
    [segment] = folder.glob("*.jsonl")
    with segment.open("ab") as file:
        file.write(b"\xff\xfe nonsense\n" + b'{"id":1}\n' + b"[" * 100_000 + b"\n")
    (folder / "0000000007.jsonl").symlink_to(secret)
    (folder / "0000000008.jsonl").mkdir()
    comparing = site.comparing()
    comparing.look()
    found = site.comparison()
    assert (found.pairs, found.lost) == (20, 3)


def test_what_another_server_wrote_meanwhile_is_not_written_over(site: Site) -> None:
    ask(site, 1.0)
    until(lambda: site.ids("champion") and site.ids("shadow"), 60)
    first, second = site.comparing(), site.comparing()
    first.look()
    second.look()
    for number in range(5):
        ask(site, float(number))
    until(lambda: len(site.ids("champion")) == len(site.ids("shadow")) == 6, 60)
    for comparing in (first, second, first, second):
        comparing.look()
        assert site.comparison().pairs == 6
