"""model serve: a model's file or folder, served from here at once. Called by `models`; runs `python -m podium.app`."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from podium.cli.commands.publishing import (
    PythonOption,
    RequirementOption,
    RequirementsOption,
    wanted_requirements,
)
from podium.cli.display import clean, clean_line
from podium.cli.exits import Exit
from podium.cli.output import emit
from podium.cli.progress import Activity
from podium.cli.reporting import note
from podium.cli.session import Session, command, home_folder
from podium.resources.errors import InvalidInput, Issue, PodiumError, Unavailable

_STOP_SECONDS = 20.0
_SHOWN_ANSWER = 400
_SHOWN_TENSORS = 12


def register(app: typer.Typer) -> None:
    """Adds the command."""
    command(app, "serve", local=True)(serve)


def serve(
    session: Session,
    path: Annotated[
        Path,
        typer.Argument(help="What `podium model push` takes: a model's file or folder."),
    ],
    port: Annotated[
        int,
        typer.Option("--port", metavar="PORT", min=0, max=65535, help="On 127.0.0.1; 0: any free one."),
    ] = 8080,
    name: Annotated[
        str | None,
        typer.Option(
            "--name", metavar="NAME", help="What the model is called in the address; else as its file."
        ),
    ] = None,
    requirement: RequirementOption = None,
    requirements: RequirementsOption = None,
    python: PythonOption = None,
    flavor: Annotated[
        str | None, typer.Option("--flavor", metavar="NAME", help="Else found by looking at the files.")
    ] = None,
) -> None:
    """Serve a model from here, without a server or a push, until Ctrl-C.

    Its environment is made as for a Deployment, and kept in PODIUM_HOME for the next time.
    """
    from podium.resources.shape import check_name

    if name is not None:
        try:
            check_name(name)
        except ValueError as error:
            raise InvalidInput(Issue("--name", str(error))) from None
    arguments = [str(path.absolute()), "--port", str(port), "--home", str(home_folder())]
    given = {"--name": name, "--python": python, "--flavor": flavor}
    arguments += [word for flag, value in given.items() if value is not None for word in (flag, value)]
    for text in wanted_requirements(requirement, requirements) or []:
        arguments.append(f"--requirement={text}")
    process = subprocess.Popen(
        [sys.executable, "-m", "podium.app", "serve-model", *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", errors="replace",
        start_new_session=True,
    )  # fmt: skip
    try:
        _follow(session, process, path)
    except KeyboardInterrupt:
        note("stopping")
        raise typer.Exit(Exit.INTERRUPTED) from None
    finally:
        _stop(process)


def _follow(session: Session, process: "subprocess.Popen[str]", path: Path) -> None:
    """What it says, until it ends. Raises what it says is wrong."""
    assert process.stdout is not None  # noqa: S101 - a pipe
    said = (next(iter(json.loads(line).items())) for line in process.stdout)
    with Activity(f"serving {path.name}", quiet=not session.is_table) as activity:
        ready = _until_ready(said, activity)
    if ready is not None:
        emit(session, ready, lambda: _show(ready))
        sys.stdout.flush()
        _until_ready(said, None)
    raise Unavailable(f"it ended with exit code {process.wait()}")


def _until_ready(said: Iterator[tuple[str, Any]], activity: Activity | None) -> dict[str, Any] | None:
    """The announcement; None at the end. Logs and notes are shown meanwhile."""
    for kind, what in said:
        if kind == "ready":
            return dict(what)
        if kind == "problem":
            raise _error(what)
        if kind == "progress" and activity is not None:
            activity.say(str(what))
        elif kind != "progress":
            print(clean_line(str(what)), file=sys.stderr, flush=True)
    return None


def _stop(process: "subprocess.Popen[str]") -> None:
    """The end of its stdin tells it; a second Ctrl-C is for the impatient."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(_STOP_SECONDS)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        # The model server dies with it.
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _error(problem: dict[str, Any]) -> PodiumError:
    issues = [Issue(issue["field"], issue["message"]) for issue in problem["issues"]]
    if issues:
        return InvalidInput(issues, next_step=problem["nextStep"])
    return PodiumError(problem["message"], next_step=problem["nextStep"])


def _show(ready: dict[str, Any]) -> None:
    print(f"{ready['name']} is served at {ready['url']}")
    print(
        f"  flavor   {clean(ready['flavor'])}, Python {clean(ready['python'])}, sandbox {ready['sandbox']['level']}"
    )
    for title in ("inputs", "outputs"):
        tensors = ready[title]
        words = [f"{item['name']} {item['datatype']}{item['shape']}" for item in tensors[:_SHOWN_TENSORS]]
        more = f", and {len(tensors) - _SHOWN_TENSORS} more" if len(tensors) > _SHOWN_TENSORS else ""
        print(f"  {title:<8} {clean(', '.join(words) + more) or 'not known'}")
    _show_example(ready)
    print("Ctrl-C stops it.", flush=True)


def _show_example(ready: dict[str, Any]) -> None:
    example = ready["example"]
    if example is None:
        print("The model does not say what it takes. Ask it with:")
        print(f"  curl -s {ready['url']}/infer -d '{{\"inputs\": [...]}}'")
        return
    what = (
        "values made up from the signature" if example["source"] == "made up" else "the model's own example"
    )
    print(f"Ask it, with {what}:\n\n  {clean(example['command'])}\n")
    answer = json.dumps(example["answer"], ensure_ascii=False)
    shown = answer if len(answer) <= _SHOWN_ANSWER else f"{answer[:_SHOWN_ANSWER]}..."
    said = (
        "It answered"
        if example["status"] == 200
        else f"It answered HTTP {example['status']}; real rows may suit it"
    )
    print(f"{said}:\n\n  {clean(shown)}\n")
