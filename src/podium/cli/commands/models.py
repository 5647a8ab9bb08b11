"""model list, show, diff, verify, alias, delete. Called by `application`.

push, pull and import are `publishing`'s, profile is `profiling`'s, serve is `serving`'s.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from podium.cli.commands import profiling, publishing, serving
from podium.cli.commands.applying import change_line
from podium.cli.display import clean, clock, coloured, print_table, size
from podium.cli.exits import Exit
from podium.cli.output import emit, emit_list
from podium.cli.progress import Activity
from podium.cli.reporting import note
from podium.cli.session import Session, command, group
from podium.resources.errors import NotFound

if TYPE_CHECKING:
    from podium.client import Client
    from podium.resources.kinds import ModelVersion

ModelArgument = Annotated[str, typer.Argument(metavar="NAME", help="The model.")]
VERSION_HELP = "A number, or @ALIAS."


def build() -> typer.Typer:
    """The group `model`."""
    app = group("model", "Models and their versions: immutable bytes under a digest.")
    serving.register(app)
    publishing.register(app)
    profiling.register(app)
    command(app, "list")(list_models)
    command(app, "show")(show)
    command(app, "diff")(diff)
    command(app, "verify")(verify)
    command(app, "alias")(alias)
    command(app, "delete")(delete)
    return app


def find_version(client: "Client", model: str, version: str) -> "ModelVersion":
    """A version by number or `@alias`. Raises NotFound that lists the aliases."""
    if version.startswith("@"):
        aliases = client.get("Model", model).status.aliases
        if version[1:] not in aliases:
            known = ", ".join(f"@{name}" for name in sorted(aliases)) or "none"
            raise NotFound(
                f"{model} has no alias {version[1:]}; aliases: {known}",
                next_step=f"podium model show {model}",
            )
        version = aliases[version[1:]]
    return client.get("ModelVersion", f"{model}.{version}")


def versions_of(client: "Client", model: str) -> "list[ModelVersion]":
    """All versions, the oldest first."""
    found = client.list("ModelVersion", fields=f"spec.model={model}")
    return sorted(found, key=lambda item: int(item.spec.version))


def list_models(
    session: Session,
    name: Annotated[str | None, typer.Argument(help="A model: its versions; left out: all models.")] = None,
) -> None:
    """All models, or the versions of one."""
    from podium.cli.columns import columns_of, rows_of

    with session.client() as client:
        found = client.list("Model") if name is None else versions_of(client, name)
        if name is not None and not found:
            client.get("Model", name)
    documents = [item.document() for item in found]
    columns = columns_of("Model" if name is None else "ModelVersion")

    def as_table() -> None:
        if documents:
            print_table([column.header for column in columns], rows_of(columns, documents))
        else:
            note(
                "no models; podium model push NAME PATH makes one"
                if name is None
                else f"{name} has no versions"
            )

    emit_list(session, documents, as_table)


def show(
    session: Session,
    name: ModelArgument,
    version: Annotated[
        str | None, typer.Argument(help=f"{VERSION_HELP} Left out: the model and its versions.")
    ] = None,
) -> None:
    """Everything about a model, or about one version."""
    with session.client() as client:
        if version is not None:
            found = find_version(client, name, version)
            emit(session, found.document(), lambda: _show_version(found))
            return
        model = client.get("Model", name)
        versions = versions_of(client, name)
    documents = [item.document() for item in versions]

    def as_table() -> None:
        from podium.cli.columns import columns_of, rows_of

        print(f"{model.metadata.name}: {clean(model.spec.description) or 'no description'}")
        print(f"  owner {clean(model.spec.owner) or 'nobody'}, risk tier {model.spec.risk_tier}")
        for alias_name, number in sorted(model.status.aliases.items()):
            print(f"  @{alias_name} is version {number}")
        columns = columns_of("ModelVersion")
        print_table([column.header for column in columns], rows_of(columns, documents))

    emit(session, {"model": model.document(), "versions": documents}, as_table)


def _show_version(version: "ModelVersion") -> None:
    spec, manifest = version.spec, version.spec.manifest
    print(f"{spec.model} version {spec.version} ({spec.digest})")
    facts: list[tuple[str, object]] = [
        ("note", spec.note),
        ("pushed", f"{clock(version.metadata.created_at)} by {spec.pushed_by or 'unknown'}"),
        ("flavor", f"{manifest.flavor.name} {manifest.flavor.entry}".strip()),
        ("python", manifest.python),
        ("requirements", ", ".join(manifest.requirements)),
        ("lock", f"sha256:{manifest.lock.sha256}"),
        (
            "git",
            f"{manifest.git.commit}{' with changes' if manifest.git.dirty else ''}" if manifest.git else "",
        ),
        ("metrics", ", ".join(f"{key}={value:g}" for key, value in sorted(manifest.metrics.items()))),
        ("datasets", ", ".join(f"{item.name} (sha256:{item.sha256[:12]})" for item in manifest.datasets)),
        ("lineage", ", ".join(sorted(manifest.lineage))),
        ("checked", _checked(version)),
        ("profile", _profiled(version)),
    ]
    for title, value in facts:
        if value:
            print(f"  {title:<13} {clean(value)}")
    for title, tensors in (
        ("inputs", manifest.signature.inputs if manifest.signature else []),
        ("outputs", manifest.signature.outputs if manifest.signature else []),
    ):
        if tensors:
            words = [
                f"{item.name} {item.datatype}{item.shape}{' optional' if item.optional else ''}"
                for item in tensors
            ]
            print(f"  {title:<13} {clean(', '.join(words))}")
    print_table(
        ["FILE", "SIZE", "SHA256"], [[item.path, size(item.size), item.sha256] for item in manifest.files]
    )


def _checked(version: "ModelVersion") -> str:
    if version.status.verified_at is None:
        return ""
    words = {True: "intact", False: "damaged", None: "not all of it could be read"}[version.status.intact]
    return f"{words} at {clock(version.status.verified_at)}"


def _profiled(version: "ModelVersion") -> str:
    profile = version.status.profile
    if profile is None:
        return ""
    carried = profile.proposal.sustained
    words = f"one replica carries {carried:,.0f} requests/s" if carried else "no rate held"
    return f"{words}, {size(profile.memory_peak)}; measured {clock(profile.measured_at)}"


def diff(
    session: Session,
    name: ModelArgument,
    before: Annotated[str, typer.Argument(metavar="FROM", help=VERSION_HELP)],
    after: Annotated[str, typer.Argument(metavar="TO", help=VERSION_HELP)],
) -> None:
    """What differs between two versions: files, requirements, signature, metrics, datasets, where they come from."""
    with session.client() as client:
        old, new = find_version(client, name, before), find_version(client, name, after)
    changes = differences(flat(old.document()["spec"]["manifest"]), flat(new.document()["spec"]["manifest"]))
    document = {
        "from": {"name": old.metadata.name, "digest": old.spec.digest},
        "to": {"name": new.metadata.name, "digest": new.spec.digest},
        "changes": [{"path": path, "from": left, "to": right} for path, left, right in changes],
    }

    def as_table() -> None:
        if not changes:
            print(f"{old.metadata.name} and {new.metadata.name} are the same")
        for path, left, right in changes:
            print(change_line(path, left, right))

    emit(session, document, as_table)


def flat(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest as path -> value, lists under the names of their items, so that an insertion is one difference."""
    found: dict[str, Any] = {}
    for file in manifest.get("files") or []:
        found[f"files[{file['path']}]"] = f"sha256:{file['sha256'][:12]} ({size(file['size'])})"
    for requirement in manifest.get("requirements") or []:
        found[f"requirements[{requirement}]"] = requirement
    for dataset in manifest.get("datasets") or []:
        found[f"datasets[{dataset['name']}]"] = f"sha256:{dataset['sha256'][:12]} ({size(dataset['size'])})"
    for side in ("inputs", "outputs"):
        for tensor in (manifest.get("signature") or {}).get(side) or []:
            optional = " optional" if tensor.get("optional") else ""
            found[f"{side}[{tensor['name']}]"] = f"{tensor['datatype']} {tensor['shape']}{optional}"
    for part in ("flavor", "python", "git", "metrics", "lineage", "lock"):
        _flatten(part, manifest.get(part), found)
    return found


def _flatten(path: str, value: Any, found: dict[str, Any]) -> None:
    if isinstance(value, Mapping):
        for key, child in value.items():
            _flatten(f"{path}.{key}", child, found)
    elif value not in (None, ""):
        found[path] = value


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(path, before, after) of what differs, in the order of `before`, then what is new."""
    paths = [*before, *(path for path in after if path not in before)]
    return [
        (path, before.get(path), after.get(path)) for path in paths if before.get(path) != after.get(path)
    ]


def verify(
    session: Session,
    name: ModelArgument,
    version: Annotated[str | None, typer.Argument(help=f"{VERSION_HELP} Left out: all versions.")] = None,
) -> None:
    """Read every stored byte and compare it with what was pushed. Exit code 1 for anything that is not intact."""
    results: list[dict[str, Any]] = []
    with session.client() as client, Activity(f"verifying {name}", quiet=not session.is_table) as activity:
        found = [find_version(client, name, version)] if version is not None else versions_of(client, name)
        if not found:
            client.get("Model", name)
        for item in found:
            activity.say(f"version {item.spec.version}")
            results.append({"name": item.metadata.name, **client.verify(name, item.spec.version)})

    def as_table() -> None:
        for result in results:
            word = {True: "intact", False: "damaged", None: "not all of it could be read"}[result["intact"]]
            print(f"{result['name']} {coloured(word)}")
            for finding in result["findings"]:
                print(f"  {clean(finding['path'])}: {clean(finding['problem'])}: {clean(finding['message'])}")
        if any(result["intact"] is False for result in results):
            print(f"Next: podium model push {name} PATH --repair, with the files that were pushed")

    emit_list(session, results, as_table)
    if not all(result["intact"] for result in results):
        raise typer.Exit(Exit.ERROR)


def alias(
    session: Session,
    name: ModelArgument,
    alias_name: Annotated[
        str | None, typer.Argument(metavar="ALIAS", help="Left out: all aliases and their history.")
    ] = None,
    version: Annotated[
        str | None, typer.Argument(help=f"{VERSION_HELP} What it points at from now on.")
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take the alias away.")] = False,
) -> None:
    """Point an alias at a version; Deployments that serve by it roll out. Without a version: where it has pointed."""
    if remove and (alias_name is None or version is not None):
        raise typer.BadParameter("--remove takes an ALIAS and no VERSION")
    with session.client() as client:
        if alias_name is None or (version is None and not remove):
            history = client.alias_history(name)
            if alias_name is not None and alias_name not in history["aliases"]:
                moves = [move for move in history["history"] if move["alias"] == alias_name]
                if not moves:
                    raise NotFound(
                        f"{name} has never had an alias {alias_name}",
                        next_step=f"podium model alias {name} {alias_name} VERSION",
                    )
            if alias_name is not None:
                history = _only(history, alias_name)
            emit(session, history, lambda: _show_aliases(history))
            return
        number = find_version(client, name, version).spec.version if version is not None else None
        model = client.set_alias(name, alias_name, number)
    words = (
        f"{name}@{alias_name} is version {number}" if number else f"{name} has no alias {alias_name} any more"
    )
    emit(session, model.document(), lambda: print(clean(words)))


def _only(history: dict[str, Any], alias_name: str) -> dict[str, Any]:
    return {
        "aliases": {key: value for key, value in history["aliases"].items() if key == alias_name},
        "history": [move for move in history["history"] if move["alias"] == alias_name],
    }


def _show_aliases(history: dict[str, Any]) -> None:
    for alias_name, number in sorted(history["aliases"].items()):
        print(f"@{clean(alias_name)} is version {number}")
    rows = [
        [
            clock(move["at"]),
            move["alias"],
            move["previous"] or "nothing",
            move["version"] or "nothing",
            move["actor"],
        ]
        for move in reversed(history["history"])
    ]
    if rows:
        print_table(["AT", "ALIAS", "FROM", "TO", "WHO"], rows)
    else:
        note("no alias has been set yet")


def delete(
    session: Session,
    name: ModelArgument,
    version: Annotated[
        str | None, typer.Argument(help=f"{VERSION_HELP} Left out: the model, once it has no versions.")
    ] = None,
) -> None:
    """Delete a version, or a model without versions. Refused while anything serves it or an alias points at it."""
    with session.client() as client:
        if version is None:
            result, label = client.delete("Model", name), f"model {name}"
        else:
            found = find_version(client, name, version)
            result = client.delete("ModelVersion", found.metadata.name)
            label = f"{name} version {found.spec.version}"
    emit(session, result.model_dump(mode="json", by_alias=True), lambda: print(f"{label} deleted"))
