"""Weights of rollouts under way, apart from the routes: Envoy looks them up per request in its runtime layer.

Called by `routes` (names), `loader` and `read_back`. A shift of weights is then one small file however many Deployments
there are; the route table, which takes Envoy 40 ms per thousand of them, stays as it is.
"""

import hashlib
from collections.abc import Iterable, Mapping

import orjson

from podium.gateway.render.document import Document, fragment, typed
from podium.planning.routing import Arm

LAYER = "weights"
VERSION_KEY = "podium.weights"
"""Envoy shows no version of a runtime layer; this entry in the layer is shown with the others."""


def prefix(workspace: str, deployment: str) -> str:
    """What the weights of one Deployment are looked up by; Envoy appends '.' and the cluster's name."""
    return f"split.{workspace}_{deployment}"


def rule_prefix(workspace: str, route: str, rule: str) -> str:
    """What the weights of one rule of a Route are looked up by. No Deployment has ':' in its name."""
    return f"{prefix(workspace, f'route:{route}')}.{rule}"


def weights_of(split: Iterable[Arm], deployment: str) -> dict[str, int]:
    """Runtime key -> basis points for the arms of a rollout."""
    return {f"{prefix(arm.workspace, deployment)}.{arm.cluster}": arm.weight for arm in split}


def over(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """Weights under which the routes before and after a change of one Deployment's or Route's arms are both right.

    An arm that is only in the old routes gets nothing any more if another of the old arms goes on; else the old routes
    keep their weights until they are gone.
    """
    going_on = {_group(key) for key in before if after.get(key, 0) > 0}
    kept = {key: 0 if _group(key) in going_on else weight for key, weight in before.items()}
    return {**kept, **after}


def _group(key: str) -> str:
    """The weights that share one route: all of a Deployment's, or those of one rule."""
    return key.rpartition(".")[0]


def weights_document(weights: Mapping[str, int]) -> Document:
    """The runtime layer with these weights."""
    version = hashlib.sha256(fragment(dict(weights))).hexdigest()[:24]
    layer = {**weights, VERSION_KEY: version}
    resource = fragment(typed("envoy.service.runtime.v3.Runtime", name=LAYER, layer=layer))
    return Document(version, b'{"versionInfo":"%s","resources":[%s]}\n' % (version.encode(), resource))


def read_weights(content: bytes) -> dict[str, int]:
    """The inverse of `weights_document`."""
    layer = orjson.loads(content)["resources"][0]["layer"]
    return {key: int(weight) for key, weight in layer.items() if key != VERSION_KEY}
