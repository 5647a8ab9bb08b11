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


def weights_of(split: Iterable[Arm], deployment: str) -> dict[str, int]:
    """Runtime key -> basis points for the arms of a rollout."""
    return {f"{prefix(arm.workspace, deployment)}.{arm.cluster}": arm.weight for arm in split}


def over(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """Weights under which the routes before and after a change of one Deployment's arms are both right.

    An arm that is only in the old routes gets nothing any more if another of the old arms goes on; else the old routes
    keep their weights until they are gone.
    """
    goes_on = any(after.get(key, 0) > 0 for key in before)
    return {**{key: 0 if goes_on else weight for key, weight in before.items()}, **after}


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
