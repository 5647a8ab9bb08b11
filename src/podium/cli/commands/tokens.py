"""token create, list, show, rotate, revoke. A token is shown once, when it is made. Called by `application`."""

from typing import TYPE_CHECKING, Annotated

import typer

from podium.cli.display import clock, print_table
from podium.cli.output import emit, emit_list
from podium.cli.pairs import pairs_of
from podium.cli.reporting import note
from podium.cli.session import Session, command, group
from podium.resources.errors import InvalidInput, Issue

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podium.resources.requests import IssuedToken, TokenInfo

ROLES = "admin, edit, view, predict, gateway"
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="As `token list` shows it.")]


def build() -> typer.Typer:
    """The group `token`."""
    app = group("token", "Tokens: who may do what. An admin's business.")
    command(app, "create")(create)
    command(app, "list")(list_tokens)
    command(app, "show")(show)
    command(app, "rotate")(rotate)
    command(app, "revoke")(revoke)
    return app


def create(
    session: Session,
    subject: Annotated[str, typer.Argument(help="Who will use it: the name that audit and metrics show.")],
    role: Annotated[str, typer.Option("--role", metavar="ROLE", help=f"One of {ROLES}.")],
    lifetime: Annotated[
        str, typer.Option("--lifetime", metavar="TIME", help="How long it is good for, 60s to 365d.")
    ] = "30d",
    all_workspaces: Annotated[
        bool, typer.Option("-A", "--all-workspaces", help="Good for every workspace, else for that of -w.")
    ] = False,
    deployment: Annotated[
        list[str] | None,
        typer.Option(
            "--deployment",
            metavar="[WORKSPACE/]NAME",
            help="Good for this deployment or route only, with --role predict. Can be repeated.",
        ),
    ] = None,
    verb: Annotated[
        list[str] | None,
        typer.Option(
            "--verb",
            metavar="VERB",
            help="`predict` asks a model, `metadata` asks about it; with --role predict. Left out: both.",
        ),
    ] = None,
    claim: Annotated[
        list[str] | None,
        typer.Option(
            "--claim",
            metavar="NAME=VALUE",
            help="What the token says of its holder, for Routes to choose by. Can be repeated.",
        ),
    ] = None,
) -> None:
    """Make a token. It is printed this once and kept nowhere."""
    workspaces = ["*"] if all_workspaces or role in ("admin", "gateway") else [session.place]
    with session.client() as client:
        issued = client.create_token(
            subject, role, workspaces=workspaces, lifetime=lifetime,
            deployments=deployment or None, verbs=verb or None, claims=_claims(claim),
        )  # fmt: skip
    _emit_issued(session, issued)


def list_tokens(session: Session) -> None:
    """The tokens that were given out, newest first; not the tokens themselves."""
    with session.client() as client:
        found = client.tokens()

    def as_table() -> None:
        rows = [
            [item.id, item.subject, item.role, _covers(item), _claimed(item.claims), clock(item.issued_at),
             clock(item.expires_at), _state(item)]
            for item in found
        ]  # fmt: skip
        print_table(["ID", "SUBJECT", "ROLE", "COVERS", "CLAIMS", "ISSUED", "EXPIRES", "STATE"], rows)

    emit_list(session, [item.model_dump(mode="json", by_alias=True) for item in found], as_table)


def show(session: Session, token_id: IdArgument) -> None:
    """One token on record: what it is for, until when, and which one took its place."""
    with session.client() as client:
        info = client.token(token_id)

    def as_table() -> None:
        lines = {
            "id": info.id,
            "subject": info.subject,
            "role": info.role,
            "workspaces": ", ".join(info.workspaces),
            "deployments": ", ".join(info.deployments or ["all of its workspaces"]),
            "verbs": ", ".join(info.verbs or ["all of its role"]),
            "claims": _claimed(info.claims),
            "issued": clock(info.issued_at),
            "expires": clock(info.expires_at),
            "state": _state(info) or "good",
            "rotated from": info.rotated_from or "",
            "rotated to": info.rotated_to or "",
        }
        for title, value in lines.items():
            if value:
                print(f"{title:<13} {value}")

    emit(session, info.model_dump(mode="json", by_alias=True), as_table)


def rotate(
    session: Session,
    token_id: IdArgument,
    overlap: Annotated[
        str,
        typer.Option("--overlap", metavar="TIME", help="How long the old one is good beside it, 0s to 30d."),
    ] = "1h",
) -> None:
    """Make a token like this one, with the same rights and lifetime, and let this one end by itself."""
    with session.client() as client:
        issued = client.rotate_token(token_id, overlap=overlap)
        old = client.token(token_id)
    _emit_issued(session, issued)
    if session.is_table:
        note(f"The old one, {old.id}, ends {clock(old.retires_at)}.")


def revoke(session: Session, token_id: IdArgument) -> None:
    """Refuse a token from now on, at the server and at every gateway."""
    with session.client() as client:
        info = client.revoke_token(token_id)
    emit(
        session,
        info.model_dump(mode="json", by_alias=True),
        lambda: print(f"token {info.id} of {info.subject} is revoked"),
    )


def _emit_issued(session: Session, issued: "IssuedToken") -> None:
    info = issued.info

    def as_table() -> None:
        print(issued.token)
        note(
            f"{info.role} token {info.id} for {info.subject}, until {clock(info.expires_at)}. It is not shown again."
        )

    emit(session, issued.model_dump(mode="json", by_alias=True), as_table)


def _covers(info: "TokenInfo") -> str:
    """Workspaces, or what its scope names and what may be done there."""
    if info.deployments is None:
        return ", ".join(info.workspaces)
    only = f" ({info.verbs[0]} only)" if info.verbs and len(info.verbs) == 1 else ""
    return ", ".join(info.deployments) + only


def _claims(given: list[str] | None) -> dict[str, str]:
    found = dict(pairs_of(given, "--claim"))
    for name, value in found.items():
        if not value:
            raise InvalidInput(Issue("--claim", f"{name[:60]}: expected a value, got nothing"))
    return found


def _claimed(claims: "Mapping[str, str]") -> str:
    return ", ".join(f"{name}={claims[name]}" for name in sorted(claims))


def _state(info: "TokenInfo") -> str:
    """Empty for one that is good and stays so."""
    if info.revoked_at is not None:
        return f"revoked {clock(info.revoked_at)}"
    if info.retires_at is not None:
        return f"rotated, ends {clock(info.retires_at)}"
    return ""
