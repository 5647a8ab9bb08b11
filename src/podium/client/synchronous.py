"""The blocking client. Each method is an operation of this package, run here."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from podium.client import operations, prediction, profiling, publishing, waiting
from podium.client.answers import error_of, unreachable
from podium.client.connection import Connection
from podium.client.effects import Call, Effect, Operation, Pause, Reply, read_file
from podium.client.operations import Action
from podium.client.prediction import Inputs
from podium.client.publishing import Pushed, PushOptions, Tell
from podium.client.waiting import RolloutOutcome, RouteOutcome
from podium.client.watching import SILENCE, WatchSession
from podium.resources.comparison import Comparison
from podium.resources.kinds import AnyResource, Deployment, Model, ModelVersion, Rollout
from podium.resources.load import Traffic
from podium.resources.profile import Profile, ProfileRequest
from podium.resources.requests import (
    ActionResult,
    ApplyResult,
    DeleteResult,
    ImportRequest,
    IssuedToken,
    ReplicaLog,
    RotateRequest,
    TokenInfo,
    TokenRequest,
    WatchEvent,
)
from podium.resources.route_test import RouteTestRequest, RouteTestResult
from podium.resources.shape import DEFAULT_WORKSPACE

T = TypeVar("T")


class Client:
    """Talks to one server, and to its gateway for predictions. Safe for threads; `close` it, or use it with `with`.

    url, token, gateway, ca_file: see `podium.client.connection`. workspace: where no method is told another.
    timeout: seconds for an answer.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        gateway: str | None = None,
        workspace: str = DEFAULT_WORKSPACE,
        timeout: float = 30.0,
        ca_file: str | Path | None = None,
    ) -> None:
        self.connection = Connection.resolve(url, token, gateway, ca_file)
        self.workspace = workspace
        self._http = httpx.Client(
            headers=self.connection.headers,
            timeout=timeout,
            trust_env=self.connection.through_proxies,
            verify=self.connection.verify,
            mounts={
                address: httpx.HTTPTransport(verify=context)
                for address, context in self.connection.own.items()
            },
        )
        self._timeout = timeout

    def close(self) -> None:
        """Gives the connections back."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Objects

    def apply(
        self,
        document: Mapping[str, Any],
        *,
        workspace: str | None = None,
        dry_run: bool = False,
        beside: Sequence[str] = (),
    ) -> ApplyResult:
        """Creates or updates one object. Without metadata.resourceVersion the present one is read and replaced; with
        it, Conflict is raised if the object has changed since.

        beside: of a Route's dry run, names of Deployments that would be applied before it."""
        return self._run(operations.apply(document, self._within(workspace), dry_run, beside))

    def get(self, kind: str, name: str, *, workspace: str | None = None) -> AnyResource:
        """One object. Raises NotFound."""
        return self._run(operations.get(kind, name, self._within(workspace)))

    def list(
        self,
        kind: str,
        *,
        workspace: str | None = None,
        labels: str | None = None,
        fields: str | None = None,
        all_workspaces: bool = False,
    ) -> Sequence[AnyResource]:
        """All objects of a kind. labels, fields: selectors such as `team=a,tier in (x,y)` and `status.phase=Ready`."""
        place = None if all_workspaces else self._within(workspace)
        return self._run(operations.list_objects(kind, place, labels, fields))

    def delete(
        self, kind: str, name: str, *, workspace: str | None = None, resource_version: int | None = None
    ) -> DeleteResult:
        """Asks for the deletion. Raises Refused naming what stands in the way."""
        return self._run(operations.delete(kind, name, self._within(workspace), resource_version))

    def watch(
        self,
        kinds: Sequence[str] | None = None,
        *,
        workspace: str | None = None,
        after: int | None = None,
        bookmarks: bool = False,
    ) -> Iterator[WatchEvent]:
        """Every change of these kinds (None: all) after version `after` (None: from now on), for ever; a connection
        that breaks is made again where it ended. workspace None: all that the token covers.

        Raises Expired when the server no longer knows what happened since: list again. Unavailable after a minute in
        which no server answered.
        """
        session = WatchSession(kinds, workspace, after, bookmarks=bookmarks)
        while True:
            try:
                timeout = httpx.Timeout(self._timeout, read=SILENCE)
                url = f"{self.connection.url}/api/v1/watch"
                with self._http.stream("GET", url, params=session.query, timeout=timeout) as response:
                    if response.status_code == httpx.codes.OK:
                        for piece in response.iter_bytes():
                            yield from session.feed(piece)
                    elif response.status_code < httpx.codes.INTERNAL_SERVER_ERROR:
                        raise error_of(response.status_code, response.headers, response.read())
                broken: Exception | None = None
            except httpx.HTTPError as error:
                broken = error
            pause = session.pause(time.monotonic())
            if pause is None:
                raise unreachable(self.connection.url, httpx.ConnectError(str(broken or "no answer")))
            time.sleep(pause)

    # Rollouts

    def rollout(self, name: str, action: Action, *, workspace: str | None = None) -> ActionResult:
        """pause, resume, promote, abort the Deployment's rollout; retry a revision that was taken back."""
        return self._run(operations.rollout(name, action, self._within(workspace)))

    def rollback(
        self, name: str, revision: str | None = None, *, workspace: str | None = None
    ) -> ActionResult:
        """Gives the traffic to an earlier revision; None: the one before, during a rollout its stable one."""
        return self._run(operations.rollback(name, revision, self._within(workspace)))

    def wait_route(
        self, name: str, *, generation: int | None = None, timeout: float = 60.0, workspace: str | None = None
    ) -> RouteOutcome:
        """Until every gateway has the Route in force; see `podium.client.waiting.wait_route`."""
        operation = waiting.wait_route(name, self._within(workspace), generation=generation, timeout=timeout)
        return self._run(operation)

    def test_route(
        self, name: str, request: RouteTestRequest, *, workspace: str | None = None
    ) -> RouteTestResult:
        """Which Deployment would answer a request by this Route, and why. Nothing is sent to a model."""
        return self._run(operations.test_route(name, request, self._within(workspace)))

    def wait(
        self,
        name: str,
        *,
        generation: int | None = None,
        timeout: float = 3600.0,
        on_update: Callable[[Deployment, Rollout | None], object] | None = None,
        workspace: str | None = None,
    ) -> RolloutOutcome:
        """How the Deployment's change comes out; see `podium.client.waiting.wait`."""
        operation = waiting.wait(
            name, self._within(workspace), generation=generation, timeout=timeout, on_update=on_update
        )
        return self._run(operation)

    def samples(self, rollout: str, *, workspace: str | None = None) -> Sequence[dict[str, Any]]:
        """What the gateways counted during a rollout."""
        return self._run(operations.samples(rollout, self._within(workspace)))

    def replay(self, rollout: str, *, workspace: str | None = None) -> Sequence[dict[str, Any]]:
        """Each decision's evidence, judged again: `same` is True where the verdict is the one that was stored."""
        return self._run(operations.replay(rollout, self._within(workspace)))

    def logs(
        self, name: str, *, replica: str | None = None, lines: int = 100, workspace: str | None = None
    ) -> Sequence[ReplicaLog]:
        """The last lines of each replica of a Deployment."""
        return self._run(operations.logs(name, replica, lines, self._within(workspace)))

    # Models

    def push(
        self,
        model: str,
        path: str | Path,
        *,
        workspace: str | None = None,
        progress: Tell | None = None,
        **options: Any,
    ) -> Pushed:
        """A file or folder as a new version. options: the fields of `podium.client.publishing.PushOptions`."""
        return self._run(
            publishing.push(model, path, self._within(workspace), PushOptions(**options), progress)
        )

    def import_mlflow(
        self,
        model: str,
        uri: str,
        *,
        workspace: str | None = None,
        progress: Tell | None = None,
        **options: Any,
    ) -> Pushed:
        """A version of an MLflow registry or run. options: the fields of `ImportRequest`."""
        request = ImportRequest(uri=uri, **options)
        return self._run(publishing.import_mlflow(model, request, self._within(workspace), progress))

    def pull(
        self,
        model: str,
        version: str,
        into: str | Path,
        *,
        workspace: str | None = None,
        progress: Tell | None = None,
    ) -> ModelVersion:
        """The files of a version (`3`, or `@champion`) in a new folder, byte for byte."""
        return self._run(publishing.pull(model, version, into, self._within(workspace), progress))

    def set_alias(
        self, model: str, alias: str, version: str | None, *, workspace: str | None = None
    ) -> Model:
        """Points an alias at a version; None takes it away."""
        return self._run(operations.set_alias(model, alias, version, self._within(workspace)))

    def alias_history(self, model: str, *, workspace: str | None = None) -> dict[str, Any]:
        """`aliases` and `history` of a model."""
        return self._run(operations.alias_history(model, self._within(workspace)))

    def verify(self, model: str, version: str, *, workspace: str | None = None) -> dict[str, Any]:
        """Reads every stored byte of a version: `intact`, `findings`, `object`."""
        return self._run(operations.verify(model, version, self._within(workspace)))

    def profile(
        self,
        model: str,
        version: str,
        *,
        workspace: str | None = None,
        progress: Tell | None = None,
        **options: Any,
    ) -> ModelVersion:
        """Measures a version (its number) and keeps the result in its status. options: the fields of
        `podium.resources.profile.ProfileRequest`."""
        request = ProfileRequest.model_validate(options)
        return self._run(profiling.profile(model, version, request, self._within(workspace), progress))

    def kept_profile(self, model: str, version: str, *, workspace: str | None = None) -> Profile:
        """The newest profile of a version. Raises NotFound where it was never measured."""
        return self._run(profiling.kept(model, version, self._within(workspace)))

    # Tokens and records

    def create_token(self, subject: str, role: str, **options: Any) -> IssuedToken:
        """A new token, which is shown this once. options: workspaces, lifetime, deployments, verbs, claims;
        see `TokenRequest`."""
        request = TokenRequest.model_validate({"subject": subject, "role": role, **options})
        return self._run(operations.create_token(request))

    def tokens(self) -> Sequence[TokenInfo]:
        """All tokens on record."""
        return self._run(operations.tokens())

    def token(self, token_id: str) -> TokenInfo:
        """One token on record. Raises NotFound."""
        return self._run(operations.token(token_id))

    def rotate_token(self, token_id: str, *, overlap: float | str = 3600.0) -> IssuedToken:
        """A new token for the same subject with the same rights and lifetime; the old one is good for `overlap` more
        (seconds, or text such as `1h`)."""
        request = RotateRequest.model_validate({"overlap": overlap})
        return self._run(operations.rotate_token(token_id, request))

    def revoke_token(self, token_id: str) -> TokenInfo:
        """Refuses a token from now on, here and at the gateways."""
        return self._run(operations.revoke_token(token_id))

    def events(
        self,
        *,
        workspace: str | None = None,
        kind: str | None = None,
        name: str | None = None,
        limit: int = 100,
    ) -> Sequence[dict[str, Any]]:
        """What happened, newest first. None: of everything that the token covers."""
        return self._run(operations.records("/events", limit, workspace=workspace, kind=kind, name=name))

    def audit(
        self,
        *,
        workspace: str | None = None,
        kind: str | None = None,
        name: str | None = None,
        limit: int = 100,
    ) -> Sequence[dict[str, Any]]:
        """Who changed what, newest first."""
        return self._run(operations.records("/audit", limit, workspace=workspace, kind=kind, name=name))

    def traffic(self, window: str = "30s", *, workspace: str | None = None) -> Traffic:
        """What every Deployment was asked and answered in the last 5 s to 15 min; `workspace` None: of all workspaces
        that the token covers."""
        return self._run(operations.traffic(window, workspace))

    def comparisons(self, *, workspace: str | None = None) -> Sequence[Comparison]:
        """How far shadows lie from their champions on the same requests."""
        return self._run(operations.comparisons(self._within(workspace)))

    def gateways(self, *, since: int | None = None) -> Sequence[dict[str, Any]]:
        """The gateways that reported in the last `since` seconds; ten minutes if left out."""
        return self._run(operations.gateways(since))

    def forget_gateway(self, name: str, *, force: bool = False) -> dict[str, Any]:
        """Nothing waits any longer for a gateway that is gone; its last report. Raises NotFound; Refused where it still
        reports, unless `force`: then it is known again with its next report."""
        return self._run(operations.forget_gateway(name, force))

    def ready(self) -> dict[str, Any]:
        """Version and schema of a server that is ready. Raises Unavailable."""
        return self._run(operations.plain(f"{self.connection.url}/readyz"))

    # Predictions

    def predict(self, name: str, inputs: Inputs, *, workspace: str | None = None) -> dict[str, Any]:
        """Asks the gateway; see `podium.client.prediction.predict`."""
        return self._run(prediction.predict(name, inputs, self.connection.gateway, self._within(workspace)))

    def _within(self, workspace: str | None) -> str:
        return self.workspace if workspace is None else workspace

    def _run(self, operation: Operation[T]) -> T:
        try:
            effect = next(operation)
            while True:
                try:
                    outcome = self._perform(effect)
                except Exception as error:
                    # The operation may know what to do about it; else it comes out of here unchanged.
                    effect = operation.throw(error)
                else:
                    effect = operation.send(outcome)
        except StopIteration as end:
            result: T = end.value
            return result

    def _perform(self, effect: Effect) -> Any:
        if isinstance(effect, Call):
            return self._call(effect)
        if isinstance(effect, Pause):
            return time.sleep(effect.seconds)
        return effect.function()

    def _call(self, request: Call) -> Reply:
        url = (
            request.path if request.path.startswith("http") else f"{self.connection.url}/api/v1{request.path}"
        )
        content = None if request.upload is None else read_file(request.upload)
        timeout = httpx.Timeout(self._timeout, read=request.timeout or self._timeout)
        try:
            with self._http.stream(
                request.method,
                url,
                params=request.parameters or None,
                json=request.body,
                content=content,
                timeout=timeout,
            ) as response:
                if response.status_code < httpx.codes.BAD_REQUEST and request.sink is not None:
                    for piece in response.iter_bytes():
                        request.sink(piece)
                elif response.status_code < httpx.codes.BAD_REQUEST and request.on_line is not None:
                    for line in response.iter_lines():
                        request.on_line(line)
                else:
                    response.read()
                    return Reply(response.status_code, response.headers, response.content)
                return Reply(response.status_code, response.headers, b"")
        except httpx.HTTPError as error:
            raise unreachable(url.partition("/api/v1")[0], error) from error
