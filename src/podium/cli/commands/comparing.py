"""shadow show: how far shadows lie from their champions on the same requests. Called by `application`; calls the
client."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from podium.cli.display import age, clean, print_table
from podium.cli.output import emit
from podium.cli.session import Session, command, group
from podium.resources.errors import NotFound

if TYPE_CHECKING:
    from podium.resources.comparison import Comparison

_NAMES = 20


def register(app: typer.Typer) -> None:
    """Adds the group."""
    inner = group("shadow", "Shadows: their answers beside those of their champions.")
    command(inner, "show")(show)
    app.add_typer(inner, name="shadow")


def show(
    session: Session,
    name: Annotated[
        str | None,
        typer.Argument(help="A Deployment, revision, Route or Rollout; all of the workspace if left out."),
    ] = None,
    examples: Annotated[
        bool, typer.Option("--examples", help="Also some answers that were not the same.")
    ] = False,
) -> None:
    """Agreement and distance of shadows and champions, with intervals that hold at every look."""
    with session.client() as client:
        found = client.comparisons()
    chosen = [one for one in found if name is None or _is_of(one, name)]
    if name is not None and not chosen:
        known = sorted({revision for one in found for revision in (one.champion, one.shadow)})
        raise NotFound(
            f"nothing of {name[:60]} is compared; compared are: {', '.join(known[:_NAMES]) or 'none'}",
            next_step="declare a shadow in a Route's rule, or a rollout of type shadow",
        )
    document = {"items": [one.model_dump(mode="json", by_alias=True) for one in chosen]}
    emit(session, document, lambda: _show(chosen, examples=examples))


def _is_of(one: "Comparison", name: str) -> bool:
    revisions = (one.champion, one.shadow)
    # Revisions are named after their Deployment, sources are `Route NAME rule RULE` and `Rollout NAME`.
    deployments = [revision.rpartition("-")[0] for revision in revisions]
    sources = [source.split()[1] for source in one.sources]
    return name in (*revisions, *deployments, *sources)


def _show(found: Sequence["Comparison"], *, examples: bool) -> None:
    if not found:
        typer.echo("no shadow gets copies of requests")
        return
    for place, one in enumerate(found):
        if place:
            typer.echo()
        _show_one(one)
        if examples and one.examples:
            rows = [
                [
                    example.request_id,
                    example.output,
                    f"{example.difference:.3f}",
                    example.champion,
                    example.shadow,
                ]
                for example in one.examples
            ]
            print_table(["REQUEST", "OUTPUT", "APART", "CHAMPION", "SHADOW"], rows)


def _show_one(one: "Comparison") -> None:
    why = ", ".join(one.sources) or "no copies are made any more"
    typer.echo(f"{clean(one.shadow)} beside {clean(one.champion)} ({clean(why)})")
    if one.message:
        typer.echo(f"  {clean(one.message)}")
    if one.pairs:
        newest = f", the newest {age(one.newest.isoformat())} ago" if one.newest is not None else ""
        typer.echo(f"  {one.pairs} requests answered by both{newest}{_times(one)}")
    counts = (
        (one.shadow_failed, "that only the champion answered"),
        (one.champion_failed, "that the champion did not answer"),
        (one.unmatched_shadow, "copies without the champion's record"),
        (one.unmatched_champion, "requests without a copy's record"),
        (one.ambiguous, "whose id came more than once"),
        (one.lost, "records lost"),
    )
    for count, words in counts:
        if count:
            typer.echo(f"  {count} {words}")
    rows = []
    for output in one.per_output:
        what = "agreement" if output.kind == "class" else "mean distance"
        low, high = output.interval
        rows.append(
            [
                output.name, what, f"{output.mean:.4f}", f"{low:.4f} to {high:.4f}",
                f"{1 - output.alpha:.0%}", output.pairs, output.mismatched or "",
            ]
        )  # fmt: skip
    if rows:
        print_table(["OUTPUT", "MEASURE", "VALUE", "INTERVAL", "CONFIDENCE", "REQUESTS", "MISMATCHED"], rows)


def _times(one: "Comparison") -> str:
    if one.champion_seconds is None or one.shadow_seconds is None:
        return ""
    return f"; on average {one.champion_seconds * 1000:.2f} ms and {one.shadow_seconds * 1000:.2f} ms"
