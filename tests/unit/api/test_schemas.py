"""The schemas of all that goes over the wire, together in one document: no two models may share a name."""

from collections import defaultdict

from pydantic import BaseModel

from podium.resources import (
    comparison,
    deployment,
    load,
    model,
    profile,
    requests,
    revision,
    rollout,
    route,
    route_test,
    scaling,
    strategies,
    traffic,
)


def test_no_two_models_have_one_name() -> None:
    found: dict[str, set[str]] = defaultdict(set)
    modules = (
        comparison, deployment, load, model, profile, requests, revision, rollout, route, route_test, scaling,
        strategies, traffic,
    )  # fmt: skip
    for module in modules:
        for name, value in vars(module).items():
            if isinstance(value, type) and issubclass(value, BaseModel):
                found[value.__name__].add(f"{value.__module__}.{name}")
    twice = {
        name: places
        for name, places in found.items()
        if len({place.rpartition(".")[0] for place in places}) > 1
    }
    assert not twice
