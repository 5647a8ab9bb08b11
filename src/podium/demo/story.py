"""`podium demo`: four versions of one model, live traffic, and what becomes of each. Called by the CLI.

Starts a Podium of its own in a folder, asks it for everything through the client as a user would, and compares what
happened with what ought to: any difference ends it with exit status 1.
"""

import contextlib
import datetime
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from podium.client import Client
from podium.demo.installation import Installation
from podium.demo.load import Answer, Load, quantile
from podium.demo.models import MISSING_SHARE, Lesson, train
from podium.resources.kinds import Rollout
from podium.resources.rollout import FINAL_PHASES

NAME = "tumour"
RATE = 120.0
"""Requests per second."""
LATENCY_LIMIT = "75ms"
_ROLLOUT_TIMEOUT = 90.0


@dataclass(frozen=True)
class Chapter:
    """One version and what ought to become of it. `because` must stand in the reason of the verdict."""

    version: int
    outcome: str
    because: str
    moral: str


CHAPTERS = (
    Chapter(1, "Promoted", "first", "goes live"),
    Chapter(2, "RolledBack", "error rate", "fails where a measurement is missing"),
    Chapter(3, "RolledBack", "slow rate", "is right, but slow"),
    Chapter(4, "Promoted", "", "takes missing values by itself"),
)


@dataclass(frozen=True)
class Ending:
    """What was seen of one rollout."""

    rollout: Rollout
    seen: int
    """Requests that the candidate answered, counted by the client."""
    failed: int
    seconds: float
    """From the first request on the candidate to the verdict."""
    last_bad: float | None
    """Seconds from the verdict to the last request that was started on a candidate that was taken back."""
    differences: list[str]


def run(console: Console, *, home: Path | None = None, keep: bool = False, svg: Path | None = None) -> int:
    """Tell the story; 0 if it went as it should. `home` None: a folder that is removed at the end unless `keep`.
    `svg`: write what was printed as a picture; the console must record."""
    code = _run(console, home=home, keep=keep)
    if svg is not None:
        picture = console.export_svg(title="podium demo")
        # Rich names a web font; a picture in a repository should need nothing from elsewhere.
        svg.write_text(re.sub(r"@font-face\s*{.*?}", "", picture, flags=re.DOTALL))
    return code


def _run(console: Console, *, home: Path | None, keep: bool) -> int:
    folder = home or Path(tempfile.mkdtemp(prefix="podium-demo-"))
    console.print(
        Panel.fit("[bold]Podium demo[/]: a model goes live, and bad ones are taken back by themselves")
    )
    started = time.monotonic()
    differences: list[str] = []
    installation = Installation(folder / "home")
    try:
        with console.status("training four versions on real data (breast cancer, scikit-learn)"):
            lesson = train(folder / "models")
        console.print(
            f"trained {len(lesson.versions)} versions; {MISSING_SHARE:.0%} of live requests lack measurements"
        )
        with console.status("starting Podium: server, gateway, Envoy"):
            installation.start()
        console.print(f"Podium is up: API {installation.addresses()['url']}, gateway {installation.gateway}")
        differences = _tell(console, installation, lesson)
    finally:
        _end(console, installation, folder, keep=keep or home is not None)
    if differences:
        console.print(Panel("\n".join(differences), title="[red]not as it should be", border_style="red"))
        return 1
    console.print(f"[green]All four went as they should[/], in {time.monotonic() - started:.0f} s.")
    return 0


def _end(console: Console, installation: Installation, folder: Path, *, keep: bool) -> None:
    if keep:
        console.print(f"kept running: PODIUM_HOME={installation.home} podium status")
        return
    with console.status("stopping"):
        installation.stop()
    shutil.rmtree(folder, ignore_errors=True)


def _tell(console: Console, installation: Installation, lesson: Lesson) -> list[str]:
    client, differences = installation.client, []
    for chapter, version in zip(CHAPTERS, lesson.versions, strict=True):
        with _progress(console, f"pushing version {chapter.version}: {version.title}") as say:
            client.push(
                NAME, version.path, metrics={"auc": round(version.auc, 4)}, note=version.title, progress=say
            )
    console.print(f"pushed {len(CHAPTERS)} versions of {NAME}; each was loaded once in its sandbox")
    url = f"{installation.gateway}/v2/models/{NAME}/infer"
    with contextlib.ExitStack() as stack:
        load: Load | None = None
        for chapter, version in zip(CHAPTERS, lesson.versions, strict=True):
            console.rule(f"version {chapter.version}: {version.title} (AUC {version.auc:.3f})")
            ending = _chapter(console, client, load, chapter)
            differences += [f"version {chapter.version}: {item}" for item in ending.differences]
            _report(console, chapter, ending)
            if load is None and not differences:
                token = installation.token
                load = stack.enter_context(Load(url, lesson.bodies, rate=RATE, token=token))
                load.wait_until(lambda answers: len(answers.rows) >= RATE, 30)
        if load is not None:
            load.stop()
            _traffic(console, load)
    _audit(console, client)
    return differences


@contextlib.contextmanager
def _progress(console: Console, title: str) -> Iterator[Any]:
    with console.status(title) as status:
        yield lambda event: status.update(f"{title}: {event}")


def deployment(version: int) -> dict[str, Any]:
    """The wish: what a user would have in a file."""
    return {
        "apiVersion": "podium/v1",
        "kind": "Deployment",
        "metadata": {"name": NAME},
        "spec": {
            "model": {"name": NAME, "version": str(version)},
            # For one timeout after a shift of weight, answers may belong to either share; they never count in favour.
            "runtime": {"requestTimeout": "5s"},
            "rollout": {
                "strategy": {
                    "type": "canary",
                    "steps": [{"weight": 20, "requests": 50}, {"weight": 50, "requests": 300}],
                    "keepOld": "2s",
                },
                "analysis": {
                    "errorRate": {"margin": 0.03},
                    "refusalRate": {"margin": 0.03},
                    "latency": {"threshold": LATENCY_LIMIT, "margin": 0.05},
                },
            },
        },
    }


def _chapter(console: Console, client: Client, load: Load | None, chapter: Chapter) -> Ending:
    began = time.time()
    client.apply(deployment(chapter.version))
    rollout = _follow(console, client, chapter, began)
    answers = load.answers.since(began) if load is not None else []
    return _ending(rollout, answers, chapter)


def _follow(console: Console, client: Client, chapter: Chapter, began: float) -> Rollout:
    """The rollout that this apply opened, once it has ended or its time is up."""
    deadline, name = time.monotonic() + _ROLLOUT_TIMEOUT, f"{NAME}-{chapter.version}"
    rollout: Rollout | None = None
    with console.status("waiting for the rollout") as status:
        while time.monotonic() < deadline:
            found = [item for item in client.list("Rollout") if item.metadata.name == name]
            rollout = found[0] if found else None
            if rollout is not None:
                now = rollout.status
                status.update(
                    f"{now.phase}: {now.weight} % on the candidate, {now.candidate_requests} requests seen, "
                    f"{now.candidate_bad} failed"
                )
                if now.phase in FINAL_PHASES:
                    return rollout
            time.sleep(0.1)
    if rollout is None:
        raise TimeoutError(f"no rollout {name} was opened within {_ROLLOUT_TIMEOUT:g} s")
    return rollout


def _ending(rollout: Rollout, answers: list[Answer], chapter: Chapter) -> Ending:
    status, differences = rollout.status, []
    if status.phase != chapter.outcome:
        differences.append(f"expected {chapter.outcome}, got {status.phase}: {status.message}")
    reasons = [item.reason for item in status.decisions]
    if chapter.because and not any(chapter.because in reason for reason in reasons):
        differences.append(f"expected a verdict on '{chapter.because}', got: {status.message}")
    mine = [answer for answer in answers if answer.revision == rollout.spec.candidate_revision]
    # A failed answer of the model's still names its revision; one of Envoy's own names none and must not occur.
    lost = [answer for answer in answers if answer.failed and not answer.revision]
    if lost:
        differences.append(f"{len(lost)} requests were lost on the way: {lost[0].status} {lost[0].error}")
    verdict = status.verdict_at.timestamp() if status.verdict_at else time.time()
    first = min((answer.started for answer in mine), default=verdict)
    taken_back = status.phase == "RolledBack"
    return Ending(
        rollout=rollout,
        seen=len(mine),
        failed=sum(answer.failed for answer in mine),
        seconds=max(0.0, verdict - first),
        last_bad=max((answer.started - verdict for answer in mine), default=0.0) if taken_back else None,
        differences=differences,
    )


def _report(console: Console, chapter: Chapter, ending: Ending) -> None:
    status = ending.rollout.status
    colour = "green" if status.phase == "Promoted" else "red"
    console.print(
        f"[bold {colour}]{status.phase}[/]: {ending.rollout.spec.candidate_revision} {chapter.moral}"
    )
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 2))
    table.add_row("requests on the candidate", f"{ending.seen:,}, of which {ending.failed:,} failed")
    if ending.seen:
        table.add_row("first request to verdict", f"{ending.seconds:.1f} s")
    if ending.last_bad is not None:
        table.add_row("verdict to its last request", f"{max(0.0, ending.last_bad) * 1000:.0f} ms")
    verdict = next(
        (item for item in reversed(status.decisions) if item.decision in ("rollback", "promote")), None
    )
    if verdict is not None:
        table.add_row("why", verdict.reason)
        for finding in ((verdict.evidence or {}).get("verdict") or {}).get("findings", []):
            table.add_row(f"evidence: {finding['metric'].replace('_', ' ')}", finding["words"])
    console.print(table)


def _traffic(console: Console, load: Load) -> None:
    rows = load.answers.rows
    times = [row.seconds * 1000 for row in rows if not row.failed]
    console.rule("the traffic, as the clients saw it")
    console.print(
        f"{len(rows):,} requests at {RATE:g}/s, {len(load.answers.failures()):,} failed; "
        f"p50 {quantile(times, 0.5):.1f} ms, p99 {quantile(times, 0.99):.1f} ms"
    )


def _audit(console: Console, client: Client) -> None:
    console.rule("who did what (audit)")
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("at", "who", "what", "on", "summary"):
        table.add_column(name, no_wrap=name != "summary")
    for row in reversed(list(client.audit(limit=200))):
        if row["verb"] in ("token.create", "tokenCreate") or row["kind"] in ("Workspace", "Token"):
            continue
        at = datetime.datetime.fromisoformat(row["at"]).strftime("%H:%M:%S")
        table.add_row(at, row["actor"], row["verb"], f"{row['kind']}/{row['name']}", row["summary"])
    console.print(table)
