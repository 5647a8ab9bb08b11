"""The server as a gateway sees it: lists, watch, token rules, reports, over real HTTP. No code of Podium's server."""

import asyncio
import bisect
import json
import socket
import threading
import time
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

PLURALS = {
    "deployments": "Deployment",
    "revisions": "Revision",
    "rollouts": "Rollout",
    "routes": "Route",
    "workspaces": "Workspace",
}


class WireServer:
    """Started and stopped at will on one port; what it knows survives a stop."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.version = 1
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.changes: list[dict[str, Any]] = []
        self.oldest = 0
        self.access: dict[str, Any] = {
            "jwks": {"keys": []}, "issuer": "podium", "tokensRequired": False, "revoked": [], "version": 1,
        }  # fmt: skip
        self.reports: list[dict[str, Any]] = []
        self.tokens_seen: set[str | None] = set()
        self.lists = 0
        self._lock = threading.Condition()
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # --- what the test does ------------------------------------------------------------------------------------

    def put(self, *documents: dict[str, Any]) -> int:
        """Commit these documents together; the version of the commit."""
        with self._lock:
            self.version += 1
            for document in documents:
                meta = document["metadata"]
                key = (document["kind"], meta.get("workspace", "default"), meta["name"])
                known = self.objects.get(key)
                stored = json.loads(json.dumps(document))
                stored["metadata"] |= {
                    "resourceVersion": self.version,
                    "uid": meta.get("uid", "-".join(key).lower()),
                }
                self.objects[key] = stored
                self.changes.append(
                    {"version": self.version, "type": "MODIFIED" if known else "ADDED", "object": stored}
                )
            self._lock.notify_all()
            return self.version

    def delete(self, kind: str, name: str, workspace: str = "default") -> int:
        with self._lock:
            self.version += 1
            gone = self.objects.pop((kind, workspace, name))
            self.changes.append({"version": self.version, "type": "DELETED", "object": gone})
            self._lock.notify_all()
            return self.version

    def other_commit(self) -> int:
        """A commit of something that no gateway looks at: seen as a bookmark."""
        with self._lock:
            self.version += 1
            self.changes.append({"version": self.version, "type": "BOOKMARK", "object": None})
            self._lock.notify_all()
            return self.version

    def forget_changes(self) -> None:
        """What a server does that keeps changes for a while only."""
        with self._lock:
            self.oldest = self.version
            self.changes.clear()

    def copy(self) -> tuple[int, dict[tuple[str, str, str], dict[str, Any]]]:
        """A backup, for `restore`."""
        with self._lock:
            return self.version, dict(self.objects)

    def restore(self, copy: tuple[int, dict[tuple[str, str, str], dict[str, Any]]]) -> None:
        """As after a restore from a backup: an older state, and versions that will be counted a second time."""
        with self._lock:
            self.version, self.objects = copy[0], dict(copy[1])
            self.reports.clear()
        self.forget_changes()

    def wait_report(self, fits: Any, seconds: float = 15.0) -> dict[str, Any]:
        """The first report, now or later, that fits; the newest is given to `fits` each time."""
        deadline = time.monotonic() + seconds
        seen = 0
        with self._lock:
            while True:
                for report in self.reports[seen:]:
                    if fits(report):
                        return report
                seen = len(self.reports)
                left = deadline - time.monotonic()
                if left <= 0:
                    raise AssertionError(f"no such report; the last: {self.reports[-1:]}")
                self._lock.wait(left)

    def wait_loaded(self, version: int, seconds: float = 15.0) -> dict[str, Any]:
        return self.wait_report(lambda report: report["observedVersion"] >= version, seconds)

    # --- the wire ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        routes = [
            Route("/api/v1/gateway/config", self._config),
            Route("/api/v1/watch", self._watch),
            Route("/api/v1/gateways/{name}", self._report, methods=["PUT"]),
            Route("/api/v1/{plural}", self._list),
        ]
        config = uvicorn.Config(
            Starlette(routes=routes), host="127.0.0.1", port=self.port, log_level="error", lifespan="off",
            timeout_graceful_shutdown=0, http="h11",
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        deadline = time.monotonic() + 10
        while not self._server.started:
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def stop(self) -> None:
        if self._server is not None and self._thread is not None:
            self._server.should_exit = self._server.force_exit = True
            self._thread.join(10)
            self._server = None

    async def _config(self, request: Request) -> Response:
        self.tokens_seen.add(request.headers.get("authorization"))
        return JSONResponse(self.access)

    async def _list(self, request: Request) -> Response:
        kind = PLURALS[request.path_params["plural"]]
        after = int(request.query_params.get("continue", "0"))
        limit = int(request.query_params["limit"])
        with self._lock:
            self.lists += 1
            found = [value for key, value in sorted(self.objects.items()) if key[0] == kind]
            version = self.version
        page = found[after : after + limit]
        more = str(after + limit) if after + limit < len(found) else None
        return JSONResponse({"items": page, "continue": more, "version": version})

    async def _watch(self, request: Request) -> Response:
        after = int(request.query_params["after"])
        if not self.oldest <= after <= self.version:
            return JSONResponse({"code": "expired", "status": 410}, 410)
        server = self._server

        async def events() -> Any:
            position = after
            while server is not None and not server.should_exit:
                with self._lock:
                    start = bisect.bisect_right(self.changes, position, key=lambda change: change["version"])
                    fresh = self.changes[start:]
                if fresh:
                    position = fresh[-1]["version"]
                    yield "".join(
                        f"id: {_safe(fresh, place)}\nevent: {change['type']}\ndata: {json.dumps(change)}\n\n"
                        for place, change in enumerate(fresh)
                    )
                else:
                    await asyncio.sleep(0.002)

        return StreamingResponse(events(), media_type="text/event-stream")

    async def _report(self, request: Request) -> Response:
        report = json.loads(await request.body())
        report["name"] = request.path_params["name"]
        report["receivedAt"] = time.monotonic()
        with self._lock:
            self.reports.append(report)
            self._lock.notify_all()
        return Response(status_code=204)


def _safe(changes: list[dict[str, Any]], place: int) -> int:
    """Where a client may go on from after this event: not behind its version while the commit is not complete."""
    version: int = changes[place]["version"]
    following = changes[place + 1]["version"] if place + 1 < len(changes) else None
    return version - 1 if following == version else version
