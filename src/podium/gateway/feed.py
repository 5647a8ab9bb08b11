"""The two ports of the agent: what comes from the server and what goes back to it.

Called by `agent`; `server_api` is the one implementation of both, over HTTP.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from podium.gateway.render.access import AccessRules
from podium.resources.kinds import AnyResource


@dataclass(frozen=True)
class Listing:
    """All objects of the watched kinds; everything up to `version` is in it."""

    objects: Sequence[AnyResource]
    version: int


@dataclass(frozen=True)
class Change:
    """One change at one version; `object` None: a bookmark.

    `position`: with this change everything up to there has come, so that it is where to go on from. It is before
    `version` as long as more changes of the same commit are to come.
    """

    version: int
    position: int
    object: AnyResource | None = None
    deleted: bool = False


class Feed(Protocol):
    """What the server wants. All methods raise Unavailable while it does not answer."""

    async def access(self) -> AccessRules:
        """Who may call. Raises InvalidInput if the answer makes no sense."""

    async def listing(self) -> Listing:
        """Everything, from the beginning."""

    def watch(self, after: int) -> AsyncIterator[Sequence[Change]]:
        """Changes later than `after`, as they come; what came together is given together. Ends when the server closes
        it. Raises Expired when the server no longer knows what happened since `after`."""


@dataclass(frozen=True)
class Report:
    """What a gateway says of itself. Everything up to `observed_version` is rendered and seen loaded in Envoy, but
    for the entries in `rejected` (workspace, deployment, version, error: Envoy's own words)."""

    observed_version: int
    rejected: Sequence[dict[str, Any]] = ()
    envoy: dict[str, Any] = field(default_factory=dict)
    samples: Sequence[dict[str, Any]] = ()
    load: dict[str, Any] | None = None
    """What `load_report` read; None: not read this time."""
    instance: dict[str, Any] | None = None
    """Who reports: `instance`."""
    leaving: bool = False
    """The last one: Envoy has ended."""

    def document(self) -> dict[str, Any]:
        """As it goes over the wire."""
        return {
            "observedVersion": self.observed_version,
            "rejected": list(self.rejected),
            "envoy": self.envoy,
            "samples": list(self.samples),
            **({"load": self.load} if self.load is not None else {}),
            **({"instance": self.instance} if self.instance is not None else {}),
            **({"leaving": True} if self.leaving else {}),
        }


class Reporter(Protocol):
    """Where reports go."""

    async def report(self, report: Report) -> None:
        """Deliver one; a newer report takes the place of an older one. Raises Unavailable, and Refused where another
        gateway has this one's name."""
