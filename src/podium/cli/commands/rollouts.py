"""rollout status|watch|history|explain|pause|resume|promote|abort|retry, and rollback. Called by `application`.

NAME is a Deployment's: its rollout under way, else its newest. A rollout's own name (`churn-3`) is understood where
one is only looked at.
"""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from podium.cli.commands.applying import TimeoutOption
from podium.cli.commands.objects import changes
from podium.cli.display import clean, clock, coloured, print_table
from podium.cli.exits import Exit
from podium.cli.following import CODES, follow, outcome_document, outcome_line, seconds_of
from podium.cli.output import emit, emit_line, emit_list
from podium.cli.session import Session, command, group
from podium.resources.errors import NotFound

if TYPE_CHECKING:
    from podium.client import Client
    from podium.resources.kinds import Rollout
    from podium.resources.requests import ActionResult

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A Deployment.")]
AnyNameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="A Deployment (its newest rollout), or a rollout.")
]


def register(app: typer.Typer) -> None:
    """Adds the group and `rollback`."""
    inner = group("rollout", "How traffic passes to a new version: look, explain, steer.")
    command(inner, "status")(status)
    command(inner, "watch")(watch)
    command(inner, "history")(history)
    command(inner, "explain")(explain)
    command(inner, "pause")(pause)
    command(inner, "resume")(resume)
    command(inner, "promote")(promote)
    command(inner, "abort")(abort)
    command(inner, "retry")(retry)
    app.add_typer(inner, name="rollout")
    command(app, "rollback")(rollback)


def find_rollout(client: "Client", name: str) -> "Rollout":
    """The rollout with this name, or the newest of the Deployment with this name. Raises NotFound."""
    of_deployment = client.list("Rollout", fields=f"spec.deployment={name}")
    if of_deployment:
        return max(of_deployment, key=_number)
    try:
        return client.get("Rollout", name)
    except NotFound:
        client.get("Deployment", name)
    raise NotFound(
        f"Deployment {name} has had no rollout yet", next_step=f"podium describe deployment {name}"
    )


def _deployment_of(client: "Client", name: str) -> str:
    """The Deployment with this name, or that of the rollout with this name. Raises NotFound."""
    try:
        return client.get("Deployment", name).metadata.name
    except NotFound as error:
        try:
            return str(client.get("Rollout", name).spec.deployment)
        except NotFound:
            raise error from None


def _number(rollout: "Rollout") -> tuple[Any, int]:
    """In the order in which they were made; two of one moment by their number."""
    suffix = rollout.metadata.name.rpartition("-")[2]
    return (rollout.metadata.created_at, int(suffix) if suffix.isdigit() else 0)


def status(
    session: Session,
    name: AnyNameArgument,
    wait: Annotated[bool, typer.Option("--wait", help="Until it is decided; see the exit codes.")] = False,
    timeout: TimeoutOption = "1h",
) -> None:
    """Where a rollout stands. With --wait the exit code is 0 promoted, 10 rolled back, 11 held, 12 timed out."""
    with session.client() as client:
        if wait:
            seconds = seconds_of(timeout)
            outcome = follow(session, client, _deployment_of(client, name), timeout=seconds)
            emit(session, outcome_document(outcome), lambda: print(clean(outcome_line(outcome))))
            if (code := CODES[outcome.outcome]) is not Exit.OK:
                raise typer.Exit(code)
            return
        rollout = find_rollout(client, name)
    document = rollout.document()
    emit(session, document, lambda: _show(rollout))


def _show(rollout: "Rollout") -> None:
    from podium.cli.explain import step_words

    spec, now = rollout.spec, rollout.status
    print(f"{rollout.metadata.name}: {coloured(now.phase)}{', paused by a person' if spec.paused else ''}")
    print(
        f"  from {spec.stable_revision or 'nothing'} to {spec.candidate_revision}, {now.weight} % on the candidate"
    )
    steps = getattr(spec.settings.strategy, "steps", None)
    if steps and 0 <= now.step < len(steps):
        print(f"  step {now.step + 1} of {len(steps)}: {step_words(steps[now.step])}")
    if now.copies or now.shadow:
        print(f"  copies    {now.copies_bad:,} failed of {now.copies:,} answered")
    if now.candidate_requests or now.stable_requests:
        print(f"  candidate {now.candidate_bad:,} failed of {now.candidate_requests:,} requests")
        print(f"  stable    {now.stable_bad:,} failed of {now.stable_requests:,} requests")
    if now.message:
        print(f"  {clean(now.message)}")
    if now.finished_at:
        print(f"  ended {clock(now.finished_at)}")


def watch(session: Session, name: AnyNameArgument) -> None:
    """Every change of a rollout as it happens, until it has ended. Exit code 10 if it was rolled back."""
    from podium.resources.kinds import KINDS
    from podium.resources.rollout import FINAL_PHASES

    kind = KINDS["Rollout"]
    with session.client() as client:
        rollout = current = find_rollout(client, name)
        last = ""
        for change, document in changes(client, kind, rollout.metadata.workspace):
            if document["metadata"]["uid"] != rollout.uid:
                continue
            current = kind.parse(document)
            line = _watch_line(current)
            if line != last:
                emit_line(session, document, f"{clock(current.metadata.updated_at)}  {line}")
                last = line
            if change == "DELETED" or current.status.phase in FINAL_PHASES:
                break
    if current.status.phase == "RolledBack":
        raise typer.Exit(Exit.ROLLED_BACK)


def _watch_line(rollout: "Rollout") -> str:
    now = rollout.status
    counts = ""
    if now.candidate_requests:
        stable = f"stable {now.stable_bad:,}/{now.stable_requests:,}"
        counts = f"candidate {now.candidate_bad:,}/{now.candidate_requests:,} failed, {stable}; "
    return f"{coloured(now.phase)}  {now.weight:>3} %  {counts}{clean(now.message)}"


def history(session: Session, name: NameArgument) -> None:
    """All rollouts of a Deployment that are kept, oldest first."""
    with session.client() as client:
        found = sorted(client.list("Rollout", fields=f"spec.deployment={name}"), key=_number)
        if not found:
            client.get("Deployment", name)

    def as_table() -> None:
        rows = [
            [item.metadata.name, item.spec.stable_revision or "", item.spec.candidate_revision, item.spec.cause,
             item.status.phase, f"{item.status.candidate_bad:,}/{item.status.candidate_requests:,}",
             clock(item.status.started_at), clock(item.status.finished_at), item.status.message]
            for item in found
        ]  # fmt: skip
        print_table(["NAME", "FROM", "TO", "CAUSE", "PHASE", "FAILED", "STARTED", "ENDED", "MESSAGE"], rows)

    emit_list(session, [item.document() for item in found], as_table)


def explain(session: Session, name: AnyNameArgument) -> None:
    """Why a rollout came out as it did: every step, every decision, and the evidence it rests on."""
    from podium.cli.explain import explanation, print_explanation

    with session.client() as client:
        rollout = find_rollout(client, name)
        replayed = client.replay(rollout.metadata.name)
    told = explanation(rollout, replayed)
    emit(session, told.document(), lambda: print_explanation(told))


def _act(session: Session, name: str, action: Any) -> None:
    with session.client() as client:
        result = client.rollout(name, action)
    _print_action(session, result)


def _print_action(session: Session, result: "ActionResult") -> None:
    emit(session, result.model_dump(mode="json", by_alias=True), lambda: print(clean(result.message)))


def pause(session: Session, name: NameArgument) -> None:
    """Stay at the present share of traffic. A candidate that gets worse is taken back all the same."""
    _act(session, name, "pause")


def resume(session: Session, name: NameArgument) -> None:
    """Go on after a pause."""
    _act(session, name, "resume")


def promote(session: Session, name: NameArgument) -> None:
    """Give the candidate all traffic now, without waiting for evidence."""
    _act(session, name, "promote")


def abort(session: Session, name: NameArgument) -> None:
    """Take the candidate back now."""
    _act(session, name, "abort")


def retry(session: Session, name: NameArgument) -> None:
    """Try a revision again that was taken back."""
    _act(session, name, "retry")


def rollback(
    session: Session,
    name: NameArgument,
    to: Annotated[
        str | None,
        typer.Option(
            "--to", metavar="REVISION", help="Else the one before; during a rollout its stable one."
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Until the traffic is there; see the exit codes.")
    ] = False,
    timeout: TimeoutOption = "1h",
) -> None:
    """Give the traffic to an earlier revision, all of it at once.

    With --wait the exit code is 0 when the traffic is where it was asked to be, 10 when that was taken back in its
    turn, 11 held, 12 timed out.
    """
    seconds = seconds_of(timeout)
    with session.client() as client:
        result = client.rollback(name, to)
        if not wait:
            _print_action(session, result)
            return
        if session.is_table:
            print(clean(result.message), flush=True)
        aborts = result.object.get("kind") == "Rollout"
        generation = None if aborts else result.object["metadata"].get("generation")
        outcome = follow(session, client, name, generation=generation, timeout=seconds)
    document = {**result.model_dump(mode="json", by_alias=True), "outcome": outcome_document(outcome)}
    emit(session, document, lambda: print(clean(outcome_line(outcome))))
    # An abort asks for just that: the candidate is taken back.
    code = Exit.OK if aborts and outcome.outcome == "rolledBack" else CODES[outcome.outcome]
    if code is not Exit.OK:
        raise typer.Exit(code)
