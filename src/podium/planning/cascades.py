"""Whether a cascade can do what it says: what the served version's signature tells of the output that holds the
confidence. Pure but for reading through `world.Reads`.

Called by `control.routes` (the Route's status), `api.plans` (what follows from an apply) and `api.routes.route_test`. A
replica without the output answers all the same and hands nothing on, which nobody would notice.
"""

import re
from collections.abc import Iterator

from podium.planning.world import Reads, read_entry, resolve
from podium.resources.kinds import Deployment, ModelVersion, Revision, Route
from podium.resources.manifest import Signature, TensorSpec
from podium.resources.route import Rule
from podium.resources.traffic import Cascade

_PROBABILITIES = re.compile(r"predict_proba(_[0-9]+)?")
"""Outputs of Podium's own flavors that hold a probability for each class."""
_LISTED = 10


def find_troubles(reads: Reads, route: Route) -> dict[str, list[str]]:
    """Rule's name -> why it hands nothing on, each with the field to change; rules without trouble are left out.

    By the revisions that share the live traffic now; of a Deployment that nobody serves yet, by the version that it
    asks for. Nothing is said of a version without a signature of its outputs, nor of another server than Podium's own,
    which marks answers in its own way.
    """
    found: dict[str, list[str]] = {}
    for number, rule in enumerate(route.spec.rules):
        words = list(_of_rule(reads, route.metadata.workspace, number, rule))
        if words:
            found[rule.name or str(number)] = words
    return found


def _of_rule(reads: Reads, workspace: str, number: int, rule: Rule) -> Iterator[str]:
    if rule.cascade is None:
        return
    for variant in rule.to:
        for who, version in _served(reads, workspace, variant.deployment):
            wrong = why_never(rule.cascade, version.spec.manifest.signature)
            if wrong is not None:
                field, why = wrong
                what = f"{version.spec.model} version {version.spec.version}"
                yield f"rules[{number}].cascade.{field}: {who} {what}, {why}"


def _served(reads: Reads, workspace: str, name: str) -> Iterator[tuple[str, ModelVersion]]:
    """Whom Podium's model server serves for a Deployment, each with the words that go in front of the version."""
    entry = read_entry(reads, workspace, name)
    if entry is None:
        return
    for revision_name in dict.fromkeys(arm.revision for arm in entry.live):
        revision: Revision | None = reads.find("Revision", workspace, revision_name)
        if revision is None or revision.spec.runtime.command is not None:
            continue
        version = reads.find("ModelVersion", workspace, f"{revision.spec.model}.{revision.spec.version}")
        if version is not None:
            yield f"{revision_name} serves", version
    deployment: Deployment | None = reads.find("Deployment", workspace, name)
    if not entry.live and deployment is not None and deployment.spec.runtime.command is None:
        version, _ = resolve(reads, workspace, deployment.spec.model)
        if version is not None:
            yield f"{name} is to serve", version


def why_never(cascade: Cascade, signature: Signature | None) -> tuple[str, str] | None:
    """Why a model with this signature never hands on as it should: the field of the cascade, and words that go on after
    the model's name. None where it does, or where the signature does not tell."""
    if signature is None or not signature.outputs:
        return None
    output = next((spec for spec in signature.outputs if spec.name == cascade.output), None)
    if output is None:
        return "output", _absent(cascade.output, [spec.name for spec in signature.outputs])
    if not output.datatype.startswith(("FP", "BF")):
        return "output", (
            f"whose {output.name} is {output.datatype}, no confidence between 0 and 1; name an output of probabilities"
        )
    classes = _classes(output)
    if classes is not None and cascade.threshold <= 1 / classes:
        return "threshold", (
            f"whose {output.name} has {classes} classes: the largest of {classes} probabilities is never below "
            f"{1 / classes:.3g}, so nothing is handed on at {cascade.threshold:g}; take more than that"
        )
    return None


def _absent(name: str, known: list[str]) -> str:
    listed = ", ".join(known[:_LISTED]) + (" and others" if len(known) > _LISTED else "")
    return f"which has no output {name}, so nothing is handed on; it has {listed}"


def _classes(output: TensorSpec) -> int | None:
    """How many probabilities a row has; None where the signature does not say, or they may be something else."""
    shape = output.shape
    if _PROBABILITIES.fullmatch(output.name) is None or len(shape) < 2 or shape[-1] < 2:
        return None
    return shape[-1]
