"""model push, pull, import: bytes go in and out. Called by `models`; calls the client."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from podium.cli.display import clean
from podium.cli.output import emit
from podium.cli.pairs import pairs_of
from podium.cli.progress import Activity
from podium.cli.session import Session, command
from podium.resources.errors import InvalidInput, Issue

if TYPE_CHECKING:
    from podium.client import Progress

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The model; made with its first version.")]
NoteOption = Annotated[str, typer.Option("--version-note", metavar="TEXT", help="What is new in it.")]
AliasOption = Annotated[
    str | None, typer.Option("--alias", metavar="ALIAS", help="Point this alias at it, in the same step.")
]
RequirementOption = Annotated[
    list[str] | None,
    typer.Option(
        "--requirement",
        metavar="SPEC",
        help="Such as scikit-learn==1.9.1; replaces what the model's files say of that package.",
    ),
]
RequirementsOption = Annotated[
    Path | None, typer.Option("--requirements", metavar="FILE", help="The same from a file, one a line.")
]
PythonOption = Annotated[
    str | None, typer.Option("--python", metavar="3.N", help="The Python to serve it with.")
]
_MAX_BYTES = 2**20


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    command(app, "push")(push)
    command(app, "pull")(pull)
    command(app, "import")(import_)


def push(
    session: Session,
    name: NameArgument,
    path: Annotated[
        Path,
        typer.Argument(
            help="A model's file (scikit-learn, XGBoost, LightGBM, ONNX, PyTorch), or a folder (MLflow, "
            "transformers, sentence-transformers, or one with a podium.yaml)."
        ),
    ],
    version_note: NoteOption = "",
    alias: AliasOption = None,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", metavar="NAME=VALUE", help="Such as auc=0.93; may be repeated."),
    ] = None,
    dataset: Annotated[
        list[Path] | None,
        typer.Option(
            "--dataset", metavar="FILE", help="What it was made from: only name, size and hash are kept."
        ),
    ] = None,
    lineage: Annotated[
        Path | None, typer.Option("--lineage", metavar="FILE", help="JSON or YAML about where it comes from.")
    ] = None,
    requirement: RequirementOption = None,
    requirements: RequirementsOption = None,
    python: PythonOption = None,
    flavor: Annotated[
        str | None,
        typer.Option(
            "--flavor",
            metavar="NAME",
            help="mlflow, sklearn, xgboost, lightgbm, onnx, pytorch, transformers, sentence-transformers, "
            "python or custom; else found by looking.",
        ),
    ] = None,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Send all files again: replaces what `model verify` found damaged."),
    ] = False,
) -> None:
    """Store a version. The same bytes pushed twice are one version."""
    options: dict[str, Any] = {
        "note": version_note,
        "alias": alias,
        "metrics": _metrics(metric or []),
        "datasets": dataset or [],
        "lineage": _lineage(lineage) if lineage is not None else {},
        "requirements": wanted_requirements(requirement, requirements),
        "python": python,
        "flavor": flavor,
        "repair": repair,
    }
    with session.client() as client, Activity(f"pushing {name}", quiet=not session.is_table) as activity:
        pushed = client.push(
            name, path, progress=lambda progress: show_progress(activity, progress), **options
        )
    _print_pushed(session, pushed)


def show_progress(activity: Activity, progress: "Progress") -> None:
    """The client's progress as a bar, and as a line for each stage that is no bar."""
    activity.advance(progress.done, progress.total)
    activity.say(progress.message)


def _print_pushed(session: Session, pushed: Any) -> None:
    spec = pushed.version.spec
    words = (
        f"{spec.model} version {spec.version}"
        if pushed.created
        else f"{spec.model}: already version {spec.version}"
    )
    document = {"created": pushed.created, "version": pushed.version.document()}
    emit(session, document, lambda: print(clean(f"{words} ({spec.digest})")))


def _metrics(given: Sequence[str]) -> dict[str, float]:
    found = {}
    for name, text in pairs_of(given, "--metric", value="NUMBER"):
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            words = f"{name[:60]}: expected a number such as auc=0.93, got {text[:60]!r}"
            raise InvalidInput(Issue("--metric", words))
        found[name] = number
    return found


def wanted_requirements(given: Sequence[str] | None, file: Path | None) -> list[str] | None:
    """None: what the model's files say. Options of pip are refused: a lock is made from names and versions alone."""
    if not given and file is None:
        return None
    found = list(given or [])
    if file is not None:
        for number, line in enumerate(_text(file, "--requirements").splitlines(), start=1):
            wish = line.partition(" #")[0].strip()
            if not wish or wish.startswith("#"):
                continue
            if wish.startswith("-") or wish.endswith("\\"):
                words = f"expected a requirement such as scikit-learn==1.9.1, got {wish[:80]!r}"
                raise InvalidInput(Issue(f"{file}, line {number}", words))
            found.append(wish)
    return found


def _lineage(file: Path) -> dict[str, Any]:
    import yaml

    text = _text(file, "--lineage")
    try:
        value = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise InvalidInput(Issue(str(file), f"expected JSON or YAML: {str(error)[:200]}")) from None
    if not isinstance(value, dict):
        raise InvalidInput(Issue(str(file), "expected an object: names and values"))
    return value


def _text(file: Path, option: str) -> str:
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise InvalidInput(Issue(option, f"{file}: expected at most {_MAX_BYTES // 2**20} MiB"))
        return file.read_text()
    except FileNotFoundError:
        raise InvalidInput(Issue(option, f"{file}: no such file")) from None
    except UnicodeDecodeError:
        raise InvalidInput(Issue(option, f"{file}: expected UTF-8 text")) from None


def pull(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The model.")],
    version: Annotated[str, typer.Argument(help="A number, or @ALIAS.")],
    folder: Annotated[
        Path | None, typer.Argument(help="A new or empty folder; else NAME-VERSION here.")
    ] = None,
) -> None:
    """The files of a version, byte for byte as they were pushed, checked against the manifest."""
    target = folder or Path(f"{name}-{version.removeprefix('@')}")
    with session.client() as client, Activity(f"pulling {name}", quiet=not session.is_table) as activity:
        found = client.pull(
            name, version, target, progress=lambda progress: show_progress(activity, progress)
        )
    document = {"folder": str(target), "version": found.document()}
    words = f"{name} version {found.spec.version} ({found.spec.digest}) is in {target}"
    emit(session, document, lambda: print(clean(words)))


def import_(
    session: Session,
    name: NameArgument,
    uri: Annotated[str, typer.Argument(help="models:/NAME/3, models:/NAME@ALIAS or runs:/RUN_ID/PATH")],
    tracking_uri: Annotated[
        str | None,
        typer.Option(
            "--tracking-uri", metavar="URI", help="Else the one that the server's operator configured."
        ),
    ] = None,
    registry_uri: Annotated[
        str | None, typer.Option("--registry-uri", metavar="URI", help="Else the tracking URI.")
    ] = None,
    version_note: NoteOption = "",
    alias: AliasOption = None,
    requirement: RequirementOption = None,
    requirements: RequirementsOption = None,
    python: PythonOption = None,
) -> None:
    """A version out of an MLflow registry or run, fetched by the server; metrics, tags and run id become lineage."""
    options: dict[str, Any] = {
        "tracking_uri": tracking_uri,
        "registry_uri": registry_uri,
        "note": version_note,
        "alias": alias,
        "requirements": wanted_requirements(requirement, requirements),
        "python": python,
    }
    with session.client() as client, Activity(f"importing {name}", quiet=not session.is_table) as activity:
        imported = client.import_mlflow(
            name, uri, progress=lambda progress: show_progress(activity, progress), **options
        )
    _print_pushed(session, imported)
