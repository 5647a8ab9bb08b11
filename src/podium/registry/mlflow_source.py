"""Models of an MLflow registry or run: fetches one version's files and what MLflow knows about it.

Called by the API for an import. The only module that imports mlflow, and only in a process of its own
(`python -m podium.registry.mlflow_source`): MLflow keeps settings in global state, follows addresses that a server
gives, takes seconds and 150 MB to import, and reports its use to its makers unless told not to. The process gets a
chosen environment, a time limit and a limit on file sizes; nothing that it fetches is loaded.
"""

import contextlib
import importlib.util
import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from podium.registry.folder import list_files
from podium.registry.mlflow_policy import (
    ImportPolicy,
    ModelUri,
    check_location,
    choose_source,
    is_local,
    local_path,
    parse_uri,
    redact,
    walk_listing,
)
from podium.resources.errors import (
    InvalidInput,
    Issue,
    NotFound,
    PodiumError,
    Refused,
    TooLarge,
    Unavailable,
)
from podium.resources.requests import ImportRequest

_MAX_ANSWER = 8 * 2**20
_MAX_DATABASE = 4 * 2**30
_MAX_MEMORY = 4 * 2**30
# What a manifest takes of a run (resources.requests): names, values, all of it, the number of each, the note.
_MAX_NAME = 256
_MAX_VALUE = 4096
_MAX_LINEAGE = 128 * 1024
_MAX_ENTRIES = 1000
_MAX_DESCRIPTION = 16_384
_ERRORS: dict[str, type[PodiumError]] = {
    kind.code: kind for kind in (NotFound, Refused, TooLarge, Unavailable) if kind.code
}
_PASSED = (
    "PATH", "HOME", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
)  # fmt: skip
_CREDENTIALS = (
    "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_INSECURE_TLS", "MLFLOW_TRACKING_SERVER_CERT_PATH", "MLFLOW_TRACKING_CLIENT_CERT_PATH",
)  # fmt: skip
_STORAGE_CREDENTIALS = ("AWS_", "MLFLOW_S3_", "AZURE_", "GOOGLE_")
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    # A redirect or a presigned address would lead the server to wherever MLflow's server says.
    "MLFLOW_ALLOW_HTTP_REDIRECTS": "false",
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_ALLOW_FILE_STORE": "true",
}


@dataclass(frozen=True)
class Imported:
    """What was fetched. The files lie under `path`; the signature and the requirements are in their MLmodel."""

    path: Path
    uri: str
    """The version itself, an alias resolved: models:/NAME/3, models:/m-ID or runs:/ID/PATH."""
    tracking_uri: str
    """Without credentials."""
    run_id: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    """Finite ones only."""
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    description: str = ""
    omitted: tuple[str, ...] = ()
    """Tags and parameters that are too long, and metrics that are no finite numbers."""

    def lineage(self) -> dict[str, Any]:
        """For the manifest: where the version came from."""
        found: dict[str, Any] = {"source": "mlflow", "uri": self.uri, "trackingUri": self.tracking_uri}
        found |= {
            "runId": self.run_id,
            "params": self.params,
            "tags": self.tags,
            "omitted": list(self.omitted),
        }
        return {key: value for key, value in found.items() if value}


def fetch(
    request: ImportRequest,
    policy: ImportPolicy,
    into: Path,
    progress: Callable[[str], None] | None = None,
) -> Imported:
    """Fetch the model that `request.uri` names into the folder `into`, which is made and must not exist.

    Raises InvalidInput (an address that is malformed or not allowed, unsafe names, not an MLflow model), NotFound (no
    such model, version, alias or run), Refused (the extra podium[mlflow] is missing), TooLarge, Unavailable. `into` is
    removed on any error.
    """
    wanted = parse_uri(request.uri)
    tracking = choose_source(request.tracking_uri, "trackingUri", policy)
    registry = (
        choose_source(request.registry_uri, "registryUri", policy) if request.registry_uri else tracking
    )
    if importlib.util.find_spec("mlflow") is None:
        raise Refused("importing from MLflow needs its client, which is not installed on the server",
                      next_step="pip install 'podium[mlflow]'")  # fmt: skip
    into.mkdir(mode=0o700)
    try:
        with tempfile.TemporaryDirectory(prefix="podium-mlflow-") as scratch:
            order = {
                "uri": asdict(wanted),
                "tracking": tracking,
                "registry": registry,
                "into": str(into),
                "policy": {**asdict(policy), "tracking_uris": []},
            }
            trusted = tracking in policy.tracking_uris and registry in policy.tracking_uris
            answer = _ask(order, Path(scratch), policy, trusted, progress)
    except BaseException:
        shutil.rmtree(into, ignore_errors=True)
        raise
    return Imported(
        path=into, tracking_uri=redact(tracking), **answer | {"omitted": tuple(answer["omitted"])}
    )


def _ask(
    order: dict[str, Any],
    scratch: Path,
    policy: ImportPolicy,
    trusted: bool,
    progress: Callable[[str], None] | None,
) -> dict[str, Any]:
    """Run the process that imports mlflow. Its stdout carries JSON lines: progress, then one answer or problem."""
    environment = {name: os.environ[name] for name in _PASSED if name in os.environ}
    if trusted:
        environment |= {name: os.environ[name] for name in _CREDENTIALS if name in os.environ}
    if policy.artifact_schemes:
        environment |= {
            name: value for name, value in os.environ.items() if name.startswith(_STORAGE_CREDENTIALS)
        }
    environment |= {**_SETTINGS, "TMPDIR": str(scratch)}
    words = scratch / "stderr"
    with words.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "podium.registry.mlflow_source"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,
            cwd=scratch, env=environment, start_new_session=True,
        )  # fmt: skip
    timer = threading.Timer(policy.timeout_seconds, process.kill)
    timer.start()
    try:
        assert process.stdin is not None and process.stdout is not None  # noqa: S101  both are pipes, see above
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(order).encode())
            process.stdin.close()
        last: dict[str, Any] = {}
        while line := process.stdout.readline(_MAX_ANSWER):
            last = _read_line(line)
            if "progress" in last and progress is not None:
                progress(str(last["progress"]))
        process.wait()
    finally:
        timer.cancel()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
    if "answer" in last:
        return dict(last["answer"])
    raise _problem(last.get("problem"), process.returncode, words, policy)


def _read_line(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _problem(problem: Any, code: int, words: Path, policy: ImportPolicy) -> PodiumError:
    if isinstance(problem, dict):
        message, next_step = str(problem.get("message")), problem.get("nextStep")
        kind = _ERRORS.get(str(problem.get("code")))
        if kind is not None:
            return kind(message, next_step=next_step)
        return InvalidInput(Issue(str(problem.get("field", "uri")), message), next_step=next_step)
    if code == -signal.SIGKILL:
        return Unavailable(f"MLflow did not finish within {policy.timeout_seconds:.0f} s, or was killed")
    with contextlib.suppress(OSError):
        lines = words.read_text(errors="replace").strip().splitlines()
        if lines:
            return Unavailable(f"MLflow's client failed: {redact(lines[-1])[:300]}")
    return Unavailable(f"MLflow's client ended with code {code}")


# --- from here on: the process of its own -------------------------------------------------------------------------


def main() -> None:
    """Reads one order on stdin, answers on stdout. MLflow's own output goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(**line: Any) -> None:
        answers.write(json.dumps(line) + "\n")
        answers.flush()

    order = json.load(sys.stdin)
    policy = ImportPolicy(**order["policy"])
    # Should the parent die, this process must not stay; and no answer may fill the disk or the memory.
    signal.alarm(int(policy.timeout_seconds) + 5)
    resource.setrlimit(resource.RLIMIT_FSIZE, (policy.max_bytes, policy.max_bytes))
    resource.setrlimit(resource.RLIMIT_DATA, (_MAX_MEMORY, _MAX_MEMORY))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        source = _Source(order["tracking"], order["registry"], policy, say)
        say(answer=source.fetch(ModelUri(**order["uri"]), Path(order["into"])))
    except InvalidInput as error:
        issue = error.issues[0]
        say(
            problem={
                "code": error.code,
                "field": issue.field,
                "message": issue.message,
                "nextStep": error.next_step,
            }
        )
    except PodiumError as error:
        say(problem={"code": error.code, "message": error.message, "nextStep": error.next_step})


class _Source:
    """One MLflow store, opened for one import."""

    def __init__(self, tracking: str, registry: str, policy: ImportPolicy, say: Callable[..., None]) -> None:
        self._policy = policy
        self._said_tracking = tracking
        self._say = say
        say(progress="starting MLflow's client")
        self._tracking = _readable(tracking)
        self._registry = self._tracking if registry == tracking else _readable(registry)
        import mlflow

        mlflow.set_tracking_uri(self._tracking)
        mlflow.set_registry_uri(self._registry)
        self._client = mlflow.MlflowClient(self._tracking, self._registry)

    def fetch(self, wanted: ModelUri, into: Path) -> dict[str, Any]:
        with _errors_of_mlflow():
            self._say(progress="asking MLflow for the model")
            uri, location, known = self._resolve(wanted)
            location = self._follow(location)
            kind = check_location(location, self._said_tracking, self._policy)
            copied = self._copy(location, into) if kind == "local" else self._download(location, into)
            self._say(progress=f"{copied} files fetched")
            answer = self._about(known)
        return {"uri": uri, **answer}

    def _resolve(self, wanted: ModelUri) -> tuple[str, str, dict[str, Any]]:
        """The version's own URI, where its files lie, and what to look up about it."""
        client = self._client
        if wanted.kind == "alias":
            found = client.get_model_version_by_alias(wanted.name, wanted.version)
            wanted = ModelUri("version", wanted.name, str(found.version))
        if wanted.kind == "version":
            found = client.get_model_version(wanted.name, wanted.version)
            location = client.get_model_version_download_uri(wanted.name, wanted.version)
            about = {"run": found.run_id or None, "tags": found.tags, "description": found.description}
            return f"models:/{wanted.name}/{wanted.version}", location, about
        if wanted.kind == "loggedModel":
            model = client.get_logged_model(wanted.name)
            return (
                f"models:/{wanted.name}",
                model.artifact_location,
                {"run": model.source_run_id, "tags": model.tags},
            )
        run = client.get_run(wanted.name)
        outputs = run.outputs.model_outputs if run.outputs else []
        # Since MLflow 3 a run's models lie beside it, under the name that the run gave them.
        for output in outputs:
            model = client.get_logged_model(output.model_id)
            if model.name == wanted.path:
                return f"runs:/{wanted.name}/{wanted.path}", model.artifact_location, {"run": wanted.name}
        location = f"{run.info.artifact_uri.rstrip('/')}/{wanted.path}"
        return f"runs:/{wanted.name}/{wanted.path}", location, {"run": wanted.name}

    def _follow(self, location: str) -> str:
        """A version may be a copy of another model: follow models:/ and runs:/ a few steps."""
        for _ in range(5):
            if not location.startswith(("models:", "runs:")):
                return location
            _, location, _ = self._resolve(parse_uri(location))
        raise InvalidInput(Issue("uri", "the model is a copy of a copy of a copy: too many steps"))

    def _about(self, known: dict[str, Any]) -> dict[str, Any]:
        tags: dict[str, Any] = dict(known.get("tags") or {})
        metrics: dict[str, Any] = {}
        params: dict[str, Any] = {}
        if known.get("run"):
            run = self._client.get_run(known["run"])
            metrics, params = run.data.metrics, run.data.params
            tags = {**run.data.tags, **tags}
        finite = {name: float(value) for name, value in metrics.items() if abs(float(value)) < float("inf")}
        kept = _bounded({"metrics": finite, "params": params, "tags": tags})
        omitted = sorted({*metrics, *params, *tags} - {name for part in kept.values() for name in part})
        return {
            "run_id": known.get("run"),
            "description": str(known.get("description") or "")[:_MAX_DESCRIPTION],
            "omitted": [ascii(name)[1:-1][:256] for name in omitted[:100]],
            **kept,
        }

    def _copy(self, location: str, into: Path) -> int:
        """A local folder, without following links: neither out of it, nor in its files."""
        folder = Path(local_path(location) if location.startswith("file:") else location)
        if not (folder / "MLmodel").is_file():
            raise InvalidInput(Issue("uri", "there is no MLflow model (no file MLmodel)"))
        paths = list_files(folder, max_files=self._policy.max_files)
        self._within(sum((folder / path).lstat().st_size for path in paths))
        for path in paths:
            target = into / path
            target.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as source, target.open("xb") as copy:
                shutil.copyfileobj(source, copy, 1024 * 1024)
        return len(paths)

    def _download(self, location: str, into: Path) -> int:
        """File by file, each name checked before anything is written under it, and what came checked again."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        repository = get_artifact_repository(
            location, tracking_uri=self._tracking, registry_uri=self._registry
        )
        files = walk_listing(repository.list_artifacts, self._policy.max_files)
        if "MLmodel" not in files:
            raise InvalidInput(Issue("uri", "there is no MLflow model (no file MLmodel)"))
        self._within(sum(files.values()))
        total = 0
        for number, path in enumerate(sorted(files), start=1):
            self._say(progress=f"{number}/{len(files)} {path[:200]}")
            repository.download_artifacts(path, str(into))  # type: ignore[no-untyped-call]
            total += (into / path).lstat().st_size
            self._within(total)
        if list_files(into, max_files=self._policy.max_files) != sorted(files):
            raise InvalidInput(Issue("uri", "MLflow delivered other files than it listed"))
        return len(files)

    def _within(self, total: int) -> None:
        if total > self._policy.max_bytes:
            raise TooLarge(f"the model has more than the {self._policy.max_bytes} bytes that are allowed")


def _bounded(parts: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """As many entries of each part as a manifest takes, in alphabetical order; values that are not numbers as text."""
    kept: dict[str, dict[str, Any]] = {}
    room = _MAX_LINEAGE
    for part, entries in parts.items():
        kept[part] = {}
        for name, value in sorted(entries.items())[:_MAX_ENTRIES]:
            text = value if isinstance(value, float) else str(value)
            size = len(json.dumps({name: text}))
            well_formed = (name + str(text)).encode("utf-8", "replace").decode() == name + str(text)
            if 0 < len(name) <= _MAX_NAME and size <= min(room, _MAX_VALUE) and well_formed:
                kept[part][name] = text
                room -= size
    return kept


def _readable(uri: str) -> str:
    """The URI to hand to MLflow. Of a SQLite database a private copy is used: MLflow's client creates tables in a
    database that has none and starts none of its work read-only, and an import must change nothing."""
    if not is_local(uri):
        return uri
    path = Path(local_path(uri))
    if uri.startswith("file:"):
        if not path.is_dir():
            raise InvalidInput(Issue("trackingUri", "there is no such folder on the server's machine"))
        return uri
    if not path.is_file():
        raise InvalidInput(Issue("trackingUri", "there is no such file on the server's machine"))
    if path.stat().st_size > _MAX_DATABASE:
        raise InvalidInput(
            Issue("trackingUri", f"the database has more than {_MAX_DATABASE} bytes"),
            next_step="start an MLflow server on it and import from its address",
        )
    copy = Path.cwd() / f"{path.name}.copy"
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=30)) as source:
            tables = {row[0] for row in source.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not {"experiments", "runs", "registered_models"} <= tables:
                raise InvalidInput(Issue("trackingUri", "that is no MLflow database"))
            with contextlib.closing(sqlite3.connect(copy)) as target:
                source.backup(target)
    except sqlite3.Error as error:
        raise InvalidInput(Issue("trackingUri", f"the database cannot be read: {error}")) from None
    return f"sqlite:///{copy}"


@contextlib.contextmanager
def _errors_of_mlflow() -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        words = redact(str(error.message)).splitlines()[0][:300]
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"):
            raise NotFound(f"MLflow: {words}") from None
        if error.error_code in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "FEATURE_DISABLED"):
            raise InvalidInput(Issue("uri", f"MLflow: {words}")) from None
        raise Unavailable(
            f"MLflow: {words}", next_step="is the MLflow server running, and its address right?"
        ) from None
    except OSError as error:
        # Errors of requests are OSErrors too; their text may hold addresses, their kind says enough.
        raise Unavailable(
            f"MLflow's files cannot be fetched: {error.strerror or type(error).__name__}"
        ) from None


if __name__ == "__main__":
    main()
