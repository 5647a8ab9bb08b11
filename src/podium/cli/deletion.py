"""Deletes one object or several, and waits until they are gone. Called by `commands.objects`."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from podium.cli.exits import Exit
from podium.cli.following import Deadline, seconds_of
from podium.cli.output import emit
from podium.cli.progress import Activity
from podium.cli.reporting import report
from podium.cli.session import Session
from podium.resources.errors import NotFound, PodiumError

if TYPE_CHECKING:
    from podium.client import Client

Target = tuple[str, str, str]
"""Kind, workspace, name."""
_LOOK_SECONDS = 0.25


def delete_all(session: Session, targets: Sequence[Target], *, wait: bool, timeout: str) -> None:
    """All of them; what fails is said, and does not keep the others. Raises typer.Exit where something failed."""
    deadline = Deadline(seconds_of(timeout))
    results: list[dict[str, Any]] = []
    failures = 0
    with session.client() as client:
        for kind, workspace, name in targets:
            try:
                result = client.delete(kind, name, workspace=workspace)
            except PodiumError as error:
                report(error)
                failures += 1
                continue
            results.append({"kind": kind, "workspace": workspace, "name": name, "removed": result.removed})
        if wait:
            _wait_gone(session, client, results, deadline)

    def as_table() -> None:
        for item in results:
            print(
                f"{item['kind']} {item['name']} {'deleted' if item['removed'] else 'is being deleted: it drains first'}"
            )

    emit(session, {"items": results}, as_table)
    if failures:
        raise typer.Exit(Exit.ERROR)
    if wait and not all(item["removed"] for item in results):
        raise typer.Exit(Exit.TIMED_OUT)


def _wait_gone(
    session: Session, client: "Client", results: Sequence[dict[str, Any]], deadline: Deadline
) -> None:
    with Activity("deleting", quiet=not session.is_table) as activity:
        for item in results:
            while not item["removed"]:
                try:
                    found = client.get(item["kind"], item["name"], workspace=item["workspace"])
                except NotFound:
                    item["removed"] = True
                    break
                activity.say(
                    f"{item['kind']} {item['name']}: {getattr(found.status, 'message', '') or 'draining'}"
                )
                if not deadline.left:
                    return
                time.sleep(min(_LOOK_SECONDS, deadline.left))
