"""Wires the control plane and runs it: `python -m podium.app server`. The one place that names concrete adapters.

API and reconcilers share one process and one store; any number of such processes may share one PostgreSQL.
"""

import contextlib
import datetime
import hashlib
import logging
import os
import secrets
import socket
import uuid
from dataclasses import dataclass
from types import FrameType

import uvicorn

from podium import __version__
from podium._wheels import runtime_wheel
from podium.api.bootstrap import bootstrap
from podium.api.create import create_app, end_watches
from podium.api.services import ApiSettings, Services
from podium.api.tokens import TokenAuthority
from podium.app.housekeeping import Housekeeping
from podium.app.inspection import SandboxedInspector
from podium.app.logs import TargetLogs
from podium.app.preparation import Preparing
from podium.app.profiling.profiler import Parts, Profiler
from podium.app.publishing import Publishing
from podium.app.settings import Settings, is_loopback, private_folder
from podium.app.tls import RenewedContext
from podium.control.comparisons import Comparing
from podium.control.deployments import DeploymentReconciler
from podium.control.loop import ControlLoop, Reconciler
from podium.control.revisions import RevisionReconciler
from podium.control.rollouts import RolloutReconciler
from podium.control.routes import RouteReconciler
from podium.environments.uv import Environments
from podium.registry.blobs import BlobStore
from podium.registry.checkout import Checkout
from podium.registry.mlflow_policy import ImportPolicy
from podium.resources.errors import Refused, Unavailable
from podium.store import Actor, Store
from podium.targets.process import ProcessTarget

_log = logging.getLogger("podium.server")


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Replicas and gateways go on without it.

    Raises Refused for a public address without credentials, Unavailable where database or port can't be had.
    """
    for folder in (settings.home, settings.run, settings.logs, settings.sockets):
        private_folder(folder)
    store = Store.open(settings.database, version_locations=settings.migrations)
    store.migrate()
    with contextlib.closing(store):
        _claim_replicas(settings, store)
        tokens = bootstrap(
            store,
            key_file=settings.key_file,
            admin_token_file=settings.admin_token_file,
            gateway_token_file=settings.gateway_token_file,
        )
        _check_exposure(settings, store)
        files = _files(settings)
        target = ProcessTarget(settings.home / "replicas", settings.sockets, settings.program_folders)
        profiler = _profiler(settings, store, files)
        services = _services(settings, store, tokens, files, (target, profiler))
        target.watch(lambda revision_uid: _wake(store, revision_uid))
        housekeeping = Housekeeping(
            store,
            files.blobs,
            files.checkout,
            files.environments,
            target,
            scratch=(settings.home / "work", settings.home / "inspections"),
        )
        comparing = Comparing(store, {"process": target})
        try:
            _serve(settings, services, _loops(settings, store, files, target), (housekeeping, comparing))
        finally:
            profiler.close()


@dataclass(frozen=True)
class _Files:
    """What lies on disk of versions, and how a replica's part of it is made ready."""

    blobs: BlobStore
    checkout: Checkout
    environments: Environments
    preparing: Preparing
    runtime_wheel: str
    """Its sha256."""


def _files(settings: Settings) -> _Files:
    wheel = runtime_wheel()
    blobs = BlobStore(settings.blobs)
    checkout = Checkout(settings.home / "checkouts", blobs)
    environments = Environments(
        settings.home / "environments", wheel=wheel, max_bytes=settings.environments_limit
    )
    preparing = Preparing(blobs, checkout, environments)
    return _Files(blobs, checkout, environments, preparing, hashlib.sha256(wheel.read_bytes()).hexdigest())


def _services(
    settings: Settings,
    store: Store,
    tokens: TokenAuthority,
    files: _Files,
    replicas: tuple[ProcessTarget, Profiler],
) -> Services:
    """What the API calls."""
    target, profiler = replicas
    return Services(
        store=store,
        tokens=tokens,
        blobs=files.blobs,
        publisher=Publishing(
            store=store,
            blobs=files.blobs,
            environments=files.environments,
            preparing=files.preparing,
            inspector=SandboxedInspector(settings.home / "inspections"),
            runtime_wheel=files.runtime_wheel,
            imports=import_policy(settings),
            work=settings.home / "work",
        ),
        profiler=profiler,
        logs=TargetLogs(store, {"process": target}),
        settings=ApiSettings(tokens_required=settings.gateway_tokens),
        version=__version__,
        runtime_wheel=files.runtime_wheel,
    )


def _loops(settings: Settings, store: Store, files: _Files, target: ProcessTarget) -> list[ControlLoop]:
    worker = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    # Files of gigabytes are checked out by the one loop; the other, which takes bad versions back, never waits.
    steering: list[Reconciler] = [
        DeploymentReconciler(store, runtime_wheel=files.runtime_wheel, clocks={"process": target}),
        RolloutReconciler(store),
        RouteReconciler(store),
    ]
    running: list[Reconciler] = [
        RevisionReconciler(store, targets={"process": target}, preparation=files.preparing)
    ]
    return [
        ControlLoop(store, steering, worker=f"{worker}-steering", threads=2),
        ControlLoop(store, running, worker=f"{worker}-running", threads=settings.workers),
    ]


def _profiler(settings: Settings, store: Store, files: _Files) -> Profiler:
    """With nothing left of a server that died while it measured."""
    parts = Parts(
        store=store, blobs=files.blobs, preparing=files.preparing, runtime_wheel=files.runtime_wheel,
        podium=__version__, root=settings.home / "profiles", sockets=settings.sockets,
    )  # fmt: skip
    profiler = Profiler(parts)
    profiler.sweep()
    return profiler


def _serve(
    settings: Settings, services: Services, loops: list[ControlLoop], beside: tuple[Housekeeping, Comparing]
) -> None:
    renewing = (
        None if settings.api_certificate is None else RenewedContext(settings.api_certificate, settings.run)
    )
    listener = _listen(settings.api_host, settings.api_port)
    app = create_app(services)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=3,
        server_header=False,
        h11_max_incomplete_event_size=64 * 1024,
        ssl_context_factory=None if renewing is None else lambda *_: renewing.context,
    )
    server = _Server(config)
    for loop in loops:
        loop.start()
    for one in beside:
        one.start()
    if renewing is not None:
        renewing.start()
    try:
        _log.info("serving on %s:%d", settings.api_host, listener.getsockname()[1])
        server.run(sockets=[listener])
    finally:
        if renewing is not None:
            renewing.stop()
        for one in beside:
            one.stop()
        for loop in loops:
            loop.stop()
        listener.close()


class _Server(uvicorn.Server):
    """Ends the watches when the signal comes: they would keep the server from draining."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        end_watches(self.config.app)  # type: ignore[arg-type]  # uvicorn knows it as any ASGI callable
        super().handle_exit(sig, frame)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise Unavailable(
            f"cannot listen on {host}:{port}: {error.strerror}",
            next_step="choose another port with --api-port",
        ) from None
    listener.listen(2048)
    listener.set_inheritable(False)
    return listener


def check_exposure(settings: Settings) -> None:
    """The same before anything is started. Raises Refused."""
    private_folder(settings.home)
    with contextlib.closing(Store.open(settings.database, version_locations=settings.migrations)) as store:
        store.migrate()
        _check_exposure(settings, store)


def _check_exposure(settings: Settings, store: Store) -> None:
    """Beyond this machine only with credentials that someone made on purpose: the first token lies in a local file."""
    if not settings.is_public:
        return
    now = datetime.datetime.now(datetime.UTC)
    with store.read() as tx:
        good = [
            row
            for row in tx.tokens()
            if row.revoked_at is None
            and not row.is_retired(now)
            and (row.expires_at is None or row.expires_at > now)
        ]
        made = [row for row in good if row.created_by != "bootstrap"]
    if not made:
        host = settings.api_host if not is_loopback(settings.api_host) else settings.gateway_host
        raise Refused(
            f"refusing to listen on {host}: no credentials are configured",
            next_step="start on 127.0.0.1, make tokens with `podium token create`, then listen elsewhere",
        )
    for host, files in (
        (settings.api_host, settings.api_certificate),
        (settings.gateway_host, settings.gateway_certificate),
    ):
        if files is None and not is_loopback(host):
            # Not refused: TLS may end in front of it.
            _log.warning("tokens come to %s in the clear: give --tls-cert and --tls-key", host)


def take_over(settings: Settings) -> None:
    """From now on this home runs the database's replicas, whichever did before."""
    private_folder(settings.home)
    with contextlib.closing(Store.open(settings.database, version_locations=settings.migrations)) as store:
        store.migrate()
        _claim_replicas(settings, store, take_over=True)


def _claim_replicas(settings: Settings, store: Store, *, take_over: bool = False) -> None:
    """The process target sees the replicas of its own home only: one home per database, one database per home.
    Raises Refused."""
    file = settings.home / "installation.id"
    # A link, so that a file that is there is whole, however many servers start at once.
    new = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    new.write_text(f"{uuid.uuid4()}\n")
    try:
        with contextlib.suppress(FileExistsError):
            os.link(new, file)
    finally:
        new.unlink()
    with contextlib.closing(ProcessTarget(settings.home / "replicas", settings.sockets)) as target:
        strangers = 0 if take_over or store.place("process") else len(target.observe_all())
    if strangers:
        raise Refused(
            f"{settings.home} has {strangers} replicas of another database than the one that this server was given",
            next_step="set PODIUM_DATABASE_URL as it was, or run `podium down` first, or `podium up --take-over`",
        )
    store.claim_place(
        "process",
        place=file.read_text().strip(),
        description=f"{settings.home} on {socket.gethostname()}",
        actor=Actor("server", "system"),
        take_over=take_over,
    )


def _wake(store: Store, uid: str) -> None:
    try:
        store.wake(uid)
    except Unavailable as error:
        _log.warning("the end of a replica of %s could not be announced: %s", uid, error)


def import_policy(settings: Settings) -> ImportPolicy:
    """Where models may be imported from, as this server's operator says."""
    if settings.import_from is None:
        return ImportPolicy(allow_any=not settings.is_public)
    named = tuple(uri for uri in settings.import_from if uri != "any")
    return ImportPolicy(tracking_uris=named, allow_any="any" in settings.import_from)
