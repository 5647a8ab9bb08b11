"""What `get` and `status` show of each kind: columns over the API's documents. Pure.

A kind without columns of its own is shown by name and age, so that a new kind needs nothing here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from podium.cli.display import age, dig, size

Cell = Callable[[Mapping[str, Any]], object]


@dataclass(frozen=True)
class Column:
    """A header, and what stands under it."""

    header: str
    cell: Cell


def at(path: str) -> Cell:
    """The value at a path, empty where there is none."""
    return lambda document: "" if dig(document, path) is None else dig(document, path)


def _age(document: Mapping[str, Any]) -> str:
    return age(dig(document, "metadata.createdAt"))


def _model(document: Mapping[str, Any]) -> str:
    reference = dig(document, "spec.model") or {}
    alias, version = reference.get("alias"), reference.get("version")
    return f"{reference.get('name', '')}{f'@{alias}' if alias else f' version {version}'}"


def _phase(document: Mapping[str, Any]) -> object:
    return "Deleting" if dig(document, "metadata.deletionRequestedAt") else dig(document, "status.phase")


def _ready(wanted: str) -> Cell:
    def cell(document: Mapping[str, Any]) -> str:
        return f"{dig(document, 'status.readyReplicas') or 0}/{dig(document, wanted) or 0}"

    return cell


def _ready_of_deployment(document: Mapping[str, Any]) -> str:
    """With scaling, of how many the load asks for, and of how many at most: `3/4 (max 8)`."""
    scaling = dig(document, "spec.scaling")
    if not scaling:
        return f"{dig(document, 'status.readyReplicas') or 0}/{dig(document, 'spec.replicas') or 0}"
    most = dig(document, "spec.scaling.max")
    return f"{dig(document, 'status.readyReplicas') or 0}/{dig(document, 'status.scaling.desired') or 0} (max {most})"


def _of_quota(thing: str) -> Cell:
    """`12/20`: asked for, of how many it may be; empty without such a quota."""

    def cell(document: Mapping[str, Any]) -> str:
        allowed, used = dig(document, f"spec.quota.{thing}"), dig(document, f"status.used.{thing}")
        if allowed is None:
            return ""
        return f"{allowed}" if used is None else f"{used}/{allowed}"

    return cell


def _aliases(document: Mapping[str, Any]) -> str:
    aliases = dig(document, "status.aliases") or {}
    return ", ".join(f"{alias}={version}" for alias, version in sorted(aliases.items()))


def _bytes(document: Mapping[str, Any]) -> str:
    return size(sum(file.get("size", 0) for file in dig(document, "spec.manifest.files") or []))


def _digest(document: Mapping[str, Any]) -> str:
    return str(dig(document, "spec.digest") or "")[:19]


def _metrics(document: Mapping[str, Any]) -> str:
    metrics = dig(document, "spec.manifest.metrics") or {}
    return ", ".join(f"{name}={value:g}" for name, value in sorted(metrics.items()))


def _intact(document: Mapping[str, Any]) -> str:
    return {True: "intact", False: "damaged"}.get(dig(document, "status.intact"), "")


def _failed(arm: str) -> Cell:
    def cell(document: Mapping[str, Any]) -> str:
        requests, bad = dig(document, f"status.{arm}Requests"), dig(document, f"status.{arm}Bad")
        return f"{bad or 0:,}/{requests:,}" if requests else ""

    return cell


def _weight(document: Mapping[str, Any]) -> str:
    return f"{dig(document, 'status.weight') or 0}%"


def _destinations(document: Mapping[str, Any]) -> str:
    """`churn 90%, churn-next 10%` of the last rule, which takes what no other does, and how many there are before."""
    rules = dig(document, "spec.rules") or [{}]
    variants = rules[-1].get("to") or []
    shares = [
        f"{one.get('deployment')} {one['weight']:g}%"
        if one.get("weight") is not None
        else f"{one.get('deployment')}"
        for one in variants
    ]
    before = f" (+{len(rules) - 1} rules)" if len(rules) > 1 else ""
    return ", ".join(shares) + before


def _message(document: Mapping[str, Any]) -> str:
    """Its first line: the last words of a model's log are for `describe`."""
    text = str(dig(document, "status.message") or "").strip()
    first = text.partition("\n")[0]
    whole = len(first) <= _LONGEST_MESSAGE and first == text
    return first if whole else f"{first[:_LONGEST_MESSAGE].rstrip()}…"


_LONGEST_MESSAGE = 100
_NAME, _AGE = Column("NAME", at("metadata.name")), Column("AGE", _age)
_MESSAGE = Column("MESSAGE", _message)
_COLUMNS: Mapping[str, Sequence[Column]] = {
    "Workspace": (
        _NAME, Column("REPLICAS", _of_quota("replicas")), Column("MEMORY", _of_quota("memory")),
        Column("RULES", _of_quota("rules")),
        Column("DESCRIPTION", at("spec.description")), _AGE,
    ),
    "Model": (
        _NAME, Column("VERSIONS", at("status.latestVersion")), Column("ALIASES", _aliases),
        Column("OWNER", at("spec.owner")), Column("RISK", at("spec.riskTier")),
        Column("DESCRIPTION", at("spec.description")), _AGE,
    ),
    "ModelVersion": (
        _NAME, Column("FLAVOR", at("spec.manifest.flavor.name")), Column("SIZE", _bytes),
        Column("PYTHON", at("spec.manifest.python")), Column("METRICS", _metrics), Column("DIGEST", _digest),
        Column("CHECKED", _intact), Column("NOTE", at("spec.note")), _AGE,
    ),
    "Deployment": (
        _NAME, Column("MODEL", _model), Column("SERVES", at("status.servedVersion")), Column("PHASE", _phase),
        Column("READY", _ready_of_deployment), Column("ROLLOUT", at("status.rollout")), _AGE, _MESSAGE,
    ),
    "Revision": (
        _NAME, Column("MODEL", at("spec.model")), Column("VERSION", at("spec.version")), Column("PHASE", _phase),
        Column("READY", _ready("status.wantedReplicas")), Column("RESTARTS", at("status.restarts")), _AGE, _MESSAGE,
    ),
    "Rollout": (
        _NAME, Column("STABLE", at("spec.stableRevision")), Column("CANDIDATE", at("spec.candidateRevision")),
        Column("PHASE", _phase), Column("WEIGHT", _weight), Column("FAILED STABLE", _failed("stable")),
        Column("FAILED CANDIDATE", _failed("candidate")), _AGE, _MESSAGE,
    ),
    "Route": (
        _NAME, Column("GOES TO", _destinations), Column("PHASE", _phase), _AGE, _MESSAGE,
    ),
}  # fmt: skip


def columns_of(kind: str, *, all_workspaces: bool = False) -> list[Column]:
    """The columns of a kind; with the workspace first where objects of several are shown."""
    first = [Column("WORKSPACE", at("metadata.workspace"))] if all_workspaces and kind != "Workspace" else []
    return first + list(_COLUMNS.get(kind, (_NAME, _AGE)))


def rows_of(columns: Sequence[Column], documents: Sequence[Mapping[str, Any]]) -> list[list[object]]:
    """A row per document."""
    return [[column.cell(document) for column in columns] for document in documents]
