"""Makes model versions of pushes and imports: the API's `Publisher`.

The way of a push: look at the files (never loading them), resolve the requirements into a lock, let a sandboxed
process load the model and tell its signature, write one canonical manifest, commit one ModelVersion.
"""

import datetime
import hashlib
import json
import queue
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from podium.app.preparation import Preparing
from podium.environments.uv import Environments
from podium.registry import mlflow_source
from podium.registry.blobs import BlobStore
from podium.registry.folder import store_folder
from podium.registry.intake import Draft, PushHints, draft
from podium.registry.mlflow_policy import ImportPolicy
from podium.registry.push import complete, push_digest
from podium.resources.errors import InvalidInput, Issue, PodiumError, Unavailable
from podium.resources.kinds import ModelVersion
from podium.resources.manifest import Manifest, Signature
from podium.resources.model import ModelSpec, ModelStatus, ModelVersionSpec, ModelVersionStatus
from podium.resources.requests import ImportRequest, PushRequest
from podium.resources.shape import Metadata, Resource
from podium.store import Actor, Store, Write

_BUILD_TIMEOUT = 1800.0
_GONE = "there is no version of"
"""uv's words for a pinned release that the index no longer lists."""
DEFAULT_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
Say = Callable[[str], None]


class Inspector(Protocol):
    """Loads a model in a sandboxed process of its own environment and returns what it says about itself."""

    def inspect(
        self, python: Path, model_path: Path, manifest_path: Path, manifest_digest: str
    ) -> dict[str, Any]:
        """`{"signature": ...}`. Raises InvalidInput with the model's own words when it does not load."""


@dataclass(frozen=True)
class Publishing:
    """The parts that a push passes through."""

    store: Store
    blobs: BlobStore
    environments: Environments
    preparing: Preparing
    inspector: Inspector
    runtime_wheel: str
    imports: ImportPolicy
    work: Path

    def push(
        self, workspace: str, model: str, request: PushRequest, actor: Actor
    ) -> Iterator[dict[str, Any]]:
        """Progress lines, then the version. The same push again gives the version that there is."""
        return _with_progress(lambda say: self._push(workspace, model, request, actor, say))

    def import_(
        self, workspace: str, model: str, request: ImportRequest, actor: Actor
    ) -> Iterator[dict[str, Any]]:
        """The same for a version of an MLflow registry or run."""
        return _with_progress(lambda say: self._import(workspace, model, request, actor, say))

    def _import(
        self, workspace: str, model: str, request: ImportRequest, actor: Actor, say: Say
    ) -> dict[str, Any]:
        self.work.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.work, prefix="import-") as folder:
            say(f"fetching {request.uri}")
            imported = mlflow_source.fetch(request, self.imports, Path(folder) / "model", say)
            files = store_folder(imported.path, self.blobs)
        wish = PushRequest(
            files=files,
            flavor="mlflow",
            requirements=request.requirements,
            python=request.python,
            metrics=imported.metrics,
            lineage=imported.lineage(),
            note=request.note or imported.description[:16_384],
            alias=request.alias,
        )
        return self._push(workspace, model, wish, actor, say)

    def _push(
        self, workspace: str, model: str, request: PushRequest, actor: Actor, say: Say
    ) -> dict[str, Any]:
        say("looking at the files")
        found = draft(request.files, PushHints.of(request, DEFAULT_PYTHON), self.blobs)
        for note in found.notes:
            say(note)
        pushed = push_digest(request, found)
        with self.store.read() as tx:
            known = tx.list(
                "ModelVersion", workspace=workspace, fields=f"spec.model={model},spec.pushDigest={pushed}"
            )
        if known.items:
            return self._again(known.items[0], request, actor)
        try:
            manifest = self._manifest(request, found, say, fresh=False)
        except InvalidInput as error:
            if _GONE not in str(error):
                raise
            # What the index named a moment ago it does not have now: a release was withdrawn, or its mirrors differ.
            say("the package index has changed meanwhile; resolving again")
            manifest = self._manifest(request, found, say, fresh=True)
        body = manifest.canonical_bytes()
        self.blobs.put([body], hashlib.sha256(body).hexdigest())
        return self._commit(workspace, model, request, manifest, pushed, actor)

    def _manifest(self, request: PushRequest, found: Draft, say: Say, *, fresh: bool) -> Manifest:
        say(f"resolving {len(found.requirements)} requirements for Python {found.python}")
        lock = self.environments.resolve(list(found.requirements), found.python, say, fresh=fresh)
        content = lock.text.encode()
        lock_digest = hashlib.sha256(content).hexdigest()
        self.blobs.put([content], lock_digest)
        manifest = complete(found, lock_digest, None, request)
        signature = self._signature(manifest, found, say)
        if signature is not None and manifest.signature is None:
            manifest = complete(found, lock_digest, signature, request)
        return manifest

    def _signature(self, manifest: Manifest, found: Draft, say: Say) -> Signature | None:
        """Load the model once where it will run: what cannot be loaded is refused here and not in a rollout.

        Files for another server are not loaded: only a Deployment says by which command. Their environment is made all
        the same, so that requirements that cannot be installed are refused.
        """
        deadline, said = time.monotonic() + _BUILD_TIMEOUT, ""
        while True:
            prepared = self.preparing.of(manifest, self.runtime_wheel)
            if prepared.error:
                raise InvalidInput(Issue("requirements", prepared.error))
            if prepared.python is not None:
                break
            if prepared.progress and prepared.progress != said:
                said = prepared.progress
                say(f"environment: {said}")
            if time.monotonic() > deadline:
                raise Unavailable(f"the environment was not ready within {_BUILD_TIMEOUT:g} s")
            time.sleep(0.2)
        if found.flavor.name == "custom":
            return found.signature
        say(f"loading the model in its sandbox ({found.flavor.name})")
        told = self.inspector.inspect(
            prepared.python, prepared.model_path, prepared.manifest_path, manifest.digest()
        )
        signature = told.get("signature")
        return Signature.model_validate(signature) if signature else None

    def _again(self, version: ModelVersion, request: PushRequest, actor: Actor) -> dict[str, Any]:
        if request.alias is not None:
            with self.store.write(actor) as tx:
                _point(tx, version, request.alias)
        return {"version": version.document(), "created": False}

    def _commit(
        self, workspace: str, model: str, request: PushRequest, manifest: Manifest, pushed: str, actor: Actor
    ) -> dict[str, Any]:
        with self.store.write(actor) as tx:
            # Two pushes of the same may have run side by side: the one that commits second is the first one's version.
            same = tx.list(
                "ModelVersion", workspace=workspace, fields=f"spec.model={model},spec.pushDigest={pushed}"
            )
            if same.items:
                version, created = same.items[0], False
            else:
                version, created = _create(tx, workspace, model, request, (manifest, pushed), actor), True
            if request.alias is not None:
                _point(tx, version, request.alias)
            return {"version": version.document(), "created": created}


def _create(
    tx: Write, workspace: str, model: str, request: PushRequest, made: tuple[Manifest, str], actor: Actor
) -> ModelVersion:
    manifest, pushed = made
    owner = tx.find("Model", workspace, model)
    if owner is None:
        metadata = Metadata(name=model, workspace=workspace)
        owner = tx.create(Resource(kind="Model", metadata=metadata, spec=ModelSpec(), status=ModelStatus()))
    number = owner.status.latest_version + 1
    tx.set_status(owner.uid, owner.status.model_copy(update={"latest_version": number}))
    spec = ModelVersionSpec(
        model=model,
        version=str(number),
        digest=manifest.digest(),
        push_digest=pushed,
        manifest=manifest,
        note=request.note,
        pushed_by=actor.name,
    )
    metadata = Metadata(name=f"{model}.{number}", workspace=workspace)
    status = ModelVersionStatus(verified_at=datetime.datetime.now(datetime.UTC), intact=True)
    return tx.create(Resource(kind="ModelVersion", metadata=metadata, spec=spec, status=status))


def _point(tx: Write, version: ModelVersion, alias: str) -> None:
    """The alias, and a wake for every Deployment that follows it."""
    workspace, model = version.metadata.workspace, version.spec.model
    tx.set_alias(workspace, model, alias, version.spec.version)
    for deployment in tx.list("Deployment", workspace=workspace, fields=f"spec.model.name={model}").items:
        tx.wake(deployment.uid)


def _with_progress(work: Callable[[Say], dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Run `work` in a thread and give its progress as it comes, then its result; what it raises is raised here."""
    lines: queue.Queue[dict[str, Any] | BaseException] = queue.Queue()

    def run() -> None:
        try:
            lines.put(work(lambda text: lines.put({"progress": text})))
        except BaseException as error:  # handed to the caller's thread, whatever it is
            lines.put(error)

    threading.Thread(target=run, name="publish", daemon=True).start()
    while True:
        line = lines.get()
        if isinstance(line, PodiumError):
            raise line
        if isinstance(line, BaseException):
            raise RuntimeError("the push failed inside the server") from line
        yield line
        if "progress" not in line:
            return


def signature_of(text: str) -> dict[str, Any]:
    """What the inspection printed on its last line. Raises InvalidInput with the model's own words."""
    try:
        told = json.loads(text.strip().splitlines()[-1])
    except (ValueError, IndexError):
        raise InvalidInput(
            Issue("files", "the model could not be looked at: its process ended without a word")
        ) from None
    if "error" in told:
        error = told["error"]
        raise InvalidInput(
            Issue(
                "files", f"the model does not load: {error.get('type', 'Error')}: {error.get('message', '')}"
            ),
            next_step="check the requirements and the Python version of the push (--requirement, --python)",
        )
    return dict(told)
