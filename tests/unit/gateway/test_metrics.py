"""Envoy's counters as Podium's metrics: bounded by callers, and never going down."""

from podium.gateway.metrics import MOST_CALLERS, OTHER, Callers

ROUTE = "deployment:default/churn"


def said(callers: dict[str, int], routes: int | None = None, code: str = "200", route: str = ROUTE) -> str:
    """What Envoy says; `routes` None: as many as by caller."""
    lines = [
        f'envoy_podium_callers_requests{{caller="{name}",route="{route}",code="{code}"}} {count}'
        for name, count in callers.items()
    ]
    total = sum(callers.values()) if routes is None else routes
    lines.append(f'envoy_podium_routes_requests{{route="{route}",code="{code}"}} {total}')
    return "# TYPE x counter\n" + "\n".join(lines) + "\n"


def counts(text: str) -> dict[str, int]:
    """Caller -> requests."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {line.split('"')[1]: int(line.rsplit(" ", 1)[1]) for line in lines}


def test_codes_are_classes_and_routes_are_names() -> None:
    text = Callers().text(said({"ann": 2}) + said({"ann": 1}, code="503", route="route:team/front"))
    assert '{caller="ann",workspace="default",kind="deployment",name="churn",status="2xx"} 2\n' in text
    assert '{caller="ann",workspace="team",kind="route",name="front",status="5xx"} 1\n' in text
    assert text.startswith("# HELP")
    for code, status in {
        "2": "2xx",
        "5": "5xx",
        "429": "429",
        "6": "other",
        "777": "other",
        "": "none",
    }.items():
        assert f'name="churn",status="{status}"}} 2\n' in Callers().text(said({"ann": 2}, code=code))


def test_the_rules_of_a_route_are_one() -> None:
    given = said({"ann": 2}, route="route:team/front#1") + said({"ann": 3}, route="route:team/front#loyal")
    assert '{caller="ann",workspace="team",kind="route",name="front",status="2xx"} 5\n' in Callers().text(
        given
    )


def test_what_envoy_did_not_count_by_caller_is_other() -> None:
    assert counts(Callers().text(said({"ann": 2, "bob": 3}, routes=9))) == {"ann": 2, "bob": 3, OTHER: 4}
    # Read in between two counters of one request.
    assert counts(Callers().text(said({"ann": 2}, routes=1))) == {"ann": 2}


def test_the_busiest_are_named_and_stay_named() -> None:
    callers = Callers()
    first = {f"c{number:03}": number + 1 for number in range(MOST_CALLERS + 10)}
    shown = counts(callers.text(said(first)))
    assert len(shown) == MOST_CALLERS + 1
    assert "c000" not in shown
    assert shown[OTHER] == sum(range(1, 11))
    later = counts(callers.text(said({**first, "c000": 10_000, "new": 5})))
    assert set(later) == set(shown)
    assert later[OTHER] == shown[OTHER] + 9_999 + 5


def test_a_caller_called_other_is_one_of_the_others() -> None:
    assert counts(Callers().text(said({OTHER: 2, "ann": 1}, routes=5))) == {"ann": 1, OTHER: 4}
