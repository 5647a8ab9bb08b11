"""token create, list, revoke. A token is shown once, when it is made. Called by `application`."""

from typing import Annotated

import typer

from podium.cli.display import clock, print_table
from podium.cli.output import emit, emit_list
from podium.cli.reporting import note
from podium.cli.session import Session, command, group

ROLES = "admin, edit, view, predict, gateway"


def build() -> typer.Typer:
    """The group `token`."""
    app = group("token", "Tokens: who may do what. An admin's business.")
    command(app, "create")(create)
    command(app, "list")(list_tokens)
    command(app, "revoke")(revoke)
    return app


def create(
    session: Session,
    subject: Annotated[str, typer.Argument(help="Who will use it: the name that the audit shows.")],
    role: Annotated[str, typer.Option("--role", metavar="ROLE", help=f"One of {ROLES}.")],
    lifetime: Annotated[
        str, typer.Option("--lifetime", metavar="TIME", help="How long it is good for, 60s to 365d.")
    ] = "30d",
    all_workspaces: Annotated[
        bool, typer.Option("-A", "--all-workspaces", help="Good for every workspace, else for that of -w.")
    ] = False,
) -> None:
    """Make a token. It is printed this once and kept nowhere."""
    workspaces = ["*"] if all_workspaces or role in ("admin", "gateway") else [session.place]
    with session.client() as client:
        issued = client.create_token(subject, role, workspaces=workspaces, lifetime=lifetime)
    info = issued.info

    def as_table() -> None:
        print(issued.token)
        note(
            f"{info.role} token {info.id} for {info.subject}, until {clock(info.expires_at)}. It is not shown again."
        )

    emit(session, issued.model_dump(mode="json", by_alias=True), as_table)


def list_tokens(session: Session) -> None:
    """The tokens that were given out, newest first; not the tokens themselves."""
    with session.client() as client:
        found = client.tokens()

    def as_table() -> None:
        rows = [
            [item.id, item.subject, item.role, ", ".join(item.workspaces), clock(item.issued_at),
             clock(item.expires_at), f"revoked {clock(item.revoked_at)}" if item.revoked_at else ""]
            for item in found
        ]  # fmt: skip
        print_table(["ID", "SUBJECT", "ROLE", "WORKSPACES", "ISSUED", "EXPIRES", "REVOKED"], rows)

    emit_list(session, [item.model_dump(mode="json", by_alias=True) for item in found], as_table)


def revoke(
    session: Session, token_id: Annotated[str, typer.Argument(metavar="ID", help="As `token list` shows it.")]
) -> None:
    """Refuse a token from now on, at the server and at every gateway."""
    with session.client() as client:
        info = client.revoke_token(token_id)
    emit(
        session,
        info.model_dump(mode="json", by_alias=True),
        lambda: print(f"token {info.id} of {info.subject} is revoked"),
    )
