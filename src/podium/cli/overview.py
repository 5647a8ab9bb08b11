"""`podium status`: the server, the gateways and the deployments at a glance. Called by `commands.local`."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from podium.cli.columns import columns_of, rows_of
from podium.cli.display import age, clean, coloured, print_table
from podium.cli.installation import Answer, Installation, ask
from podium.cli.reporting import lines
from podium.cli.session import Session
from podium.resources.errors import PodiumError


@dataclass(frozen=True)
class Overview:
    """What was seen. `processes` is empty where the server is another machine's."""

    url: str
    server: Answer
    gateway: str | None
    gateway_answer: Answer
    home: str
    processes: dict[str, int | None]
    gateways: Sequence[dict[str, Any]] = ()
    deployments: Sequence[dict[str, Any]] = ()
    problems: list[str] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        """Server and gateway are ready."""
        return self.server.ok and (self.gateway is None or self.gateway_answer.ok) and not self.problems

    def document(self) -> dict[str, Any]:
        """For -o json."""
        return {
            "healthy": self.healthy,
            "server": {"url": self.url, "ready": self.server.ok, "version": self.server.body.get("version")},
            "gateway": {"url": self.gateway, "ready": self.gateway_answer.ok},
            "home": self.home,
            "processes": self.processes,
            "gateways": list(self.gateways),
            "deployments": list(self.deployments),
            "problems": self.problems,
        }


def collect(session: Session, installation: Installation) -> Overview:
    """Ask everyone; what does not answer is part of the answer."""
    found = installation.addresses()
    remote = bool(session.url or os.environ.get("PODIUM_URL"))
    url = str(session.url or os.environ.get("PODIUM_URL") or found.get("url") or "")
    gateway = (
        str(found["gateway"]) if not remote and found.get("gateway") else os.environ.get("PODIUM_GATEWAY_URL")
    )
    server = ask(url, "/readyz", ca_file=session.ca_file) if url else Answer(0, {})
    gateway_answer = ask(gateway, "/v2/health/ready", ca_file=session.ca_file) if gateway else Answer(0, {})
    gateways: Sequence[dict[str, Any]] = ()
    deployments: list[dict[str, Any]] = []
    problems: list[str] = []
    processes: dict[str, int | None] = {}
    try:
        processes = {} if remote or not url else installation.processes()
        if server.ok:
            with session.client() as client:
                gateways = client.gateways()
                everywhere = session.workspace is None
                deployments = [d.document() for d in client.list("Deployment", all_workspaces=everywhere)]
    except PodiumError as error:
        problems = [line.removeprefix("Error: ") for line in lines(error)]
    home = "" if remote else str(installation.home)
    return Overview(url, server, gateway, gateway_answer, home, processes, gateways, deployments, problems)


def show(overview: Overview) -> None:
    """The same for people."""
    if not overview.url:
        print(f"Podium was never started in {overview.home}; start it with `podium up`")
        return
    _line(
        "server",
        overview.url,
        overview.server,
        f"version {clean(overview.server.body.get('version', 'unknown'))}",
    )
    if overview.gateway:
        _line("gateway", overview.gateway, overview.gateway_answer, "")
    if not overview.server.status and overview.processes and not any(overview.processes.values()):
        print("Podium is not running; start it with `podium up`")
    elif overview.processes:
        parts = [
            f"{name} {f'pid {pid}' if pid else coloured('not running', 'red')}"
            for name, pid in overview.processes.items()
        ]
        print(f"{'processes':<10} {', '.join(parts)}")
    for item in overview.gateways:
        refused = f", {len(item['rejected'])} routes refused by Envoy" if item.get("rejected") else ""
        words = (
            f"gateway {clean(item['name'])} {age(item['seenAt'])} ago, at version {item['observedVersion']}"
        )
        print(f"{'reports':<10} {words}{refused}")
    for problem in overview.problems:
        print(f"{'problem':<10} {clean(problem)}")
    if overview.deployments:
        print()
        columns = columns_of("Deployment", all_workspaces=True)
        print_table([column.header for column in columns], rows_of(columns, overview.deployments))
    elif overview.server.ok and not overview.problems:
        print("no deployments yet; podium model push and podium apply make one")


def _line(name: str, url: str, answer: Answer, detail: str) -> None:
    if answer.ok:
        words = f"{coloured('ready', 'green')}{f', {detail}' if detail else ''}"
    elif answer.status:
        words = f"{coloured('not ready', 'red')}: {clean(answer.body.get('detail', f'HTTP {answer.status}'))}"
    else:
        words = coloured("does not answer", "red")
    print(f"{name:<10} {url}  {words}")
