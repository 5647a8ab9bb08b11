"""From a draft to a manifest, and the digest by which the same push is known again.

Called by the API. Pure: reads no storage. Why there are two digests: docs/decisions/040.
"""

import hashlib

from podium.registry.intake import Draft
from podium.resources.manifest import LockReference, Manifest, Signature, canonical_json
from podium.resources.requests import PushRequest


def push_digest(request: PushRequest, draft: Draft) -> str:
    """`sha256:<hex>` over what was pushed, before anything was resolved.

    The same files, flavor, requirements, Python version, signature, metrics, datasets and lineage give the same
    digest, in whatever order they were named. Not in it: the git commit, the note, the alias, the resolved lock, and
    the server's own Python version where nobody stated one.
    """
    pushed = {
        "format": "podium.push/1",
        "files": [file.model_dump(mode="json") for file in draft.files],
        "flavor": draft.flavor.model_dump(mode="json"),
        "requirements": list(draft.requirements),
        "python": draft.python if draft.python_stated else None,
        "signature": draft.signature.model_dump(mode="json") if draft.signature else None,
        "metrics": request.metrics,
        "datasets": _datasets(request),
        "lineage": request.lineage,
    }
    return "sha256:" + hashlib.sha256(canonical_json(pushed)).hexdigest()


def complete(draft: Draft, lock_sha256: str, signature: Signature | None, request: PushRequest) -> Manifest:
    """The manifest of the version. `lock_sha256` is the stored lock's; `signature` is what the loaded model told,
    used where neither the pusher nor the files say one."""
    return Manifest(
        flavor=draft.flavor,
        files=list(draft.files),
        signature=draft.signature or signature,
        python=draft.python,
        requirements=list(draft.requirements),
        lock=LockReference(sha256=lock_sha256),
        datasets=sorted(request.datasets, key=lambda dataset: (dataset.name, dataset.sha256)),
        git=request.git,
        metrics=request.metrics,
        lineage=request.lineage,
    )


def _datasets(request: PushRequest) -> list[dict[str, object]]:
    ordered = sorted(request.datasets, key=lambda dataset: (dataset.name, dataset.sha256))
    return [dataset.model_dump(mode="json") for dataset in ordered]
