"""The command as a whole: fast to start, clear when it is misused, silent about secrets."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from podium.cli.application import build
from podium.resources.kinds import KINDS, json_schema

HEAVY = ("httpx", "rich", "yaml", "sqlite3", "http.client", "sqlalchemy", "fastapi", "numpy")


def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PODIUM_")}
    return subprocess.run(
        [sys.executable, "-m", "podium.cli", *arguments],
        env={**clean, **environment}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("PODIUM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PODIUM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PODIUM_API_PORT", "0")
    monkeypatch.setenv("PODIUM_GATEWAY_PORT", "0")
    return tmp_path / "home"


@pytest.mark.parametrize("arguments", [["--help"], ["model", "push", "--help"], ["version"]])
def test_what_needs_no_library_imports_none(arguments: list[str]) -> None:
    # Typer itself reads the parameters of a command with pydantic; the help of the whole does without.
    heavy = {*HEAVY, "pydantic"} if arguments == ["--help"] else set(HEAVY)
    code = (
        f"import sys; sys.argv = ['podium', *{arguments!r}]\n"
        "from podium.cli import main\n"
        "try: main()\n"
        "finally: print(sorted(sys.modules), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0
    loaded = set(done.stderr.replace("'", "").strip("[]\n ").split(", "))
    assert "podium.cli.session" in loaded
    assert loaded.isdisjoint(heavy)


def test_no_arguments_is_the_help() -> None:
    done = run()
    assert done.returncode == 2
    assert "Usage: podium" in done.stdout + done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["nosuch"],
        ["get"],
        ["apply"],
        ["apply", "-f", "x", "--dry-run", "--wait"],
        ["get", "models", "m", "-A"],
        ["get", "models", "--watch", "-l", "a=b"],
        ["delete", "model"],
        ["delete", "model", "m", "-f", "x"],
        ["predict", "m"],
        ["predict", "m", "--row", "1", "--data", "{}"],
        ["model", "alias", "m", "--remove"],
        ["get", "models", "-o", "xml"],
        ["up", "--api-port", "70000"],
    ],
)
def test_a_command_line_that_makes_no_sense_ends_with_2(arguments: list[str], home: Path) -> None:
    result = CliRunner().invoke(build(), arguments)
    assert result.exit_code == 2, result.stderr
    assert "Error: " in result.stderr
    assert "Traceback" not in result.stderr


def test_no_server_is_known(home: Path) -> None:
    result = CliRunner().invoke(build(), ["get", "models"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: no server is known. Next: podium up")
    assert len(result.stderr.splitlines()) == 1


def test_tracebacks_are_for_vv_only(home: Path) -> None:
    assert "Traceback" not in run("get", "models", PODIUM_URL="nonsense", PODIUM_HOME=str(home)).stderr
    told = run("get", "models", "-vv", PODIUM_URL="nonsense", PODIUM_HOME=str(home))
    assert told.returncode == 1
    assert "Traceback" in told.stderr
    assert "Error: url: expected http://host:port" in told.stderr


def test_a_token_is_never_shown(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    for arguments in (["get", "models", "-vv", "--token", "s3cret-token"], ["status", "-vv"]):
        told = run(*arguments, PODIUM_URL=url, PODIUM_TOKEN="s3cret-token", PODIUM_HOME=str(home))
        assert told.returncode == 1
        assert "s3cret-token" not in told.stdout + told.stderr


def test_schemas_are_those_of_the_kinds(home: Path) -> None:
    for name, kind in KINDS.items():
        result = CliRunner().invoke(build(), ["schema", name])
        assert json.loads(result.stdout) == json_schema(kind)
    listed = json.loads(CliRunner().invoke(build(), ["schema", "-o", "json"]).stdout)
    assert [item["kind"] for item in listed["items"]] == list(KINDS)
    assert "known: Workspace" in CliRunner().invoke(build(), ["schema", "gizmo"]).stderr


def test_version_is_told_as_an_option_too(home: Path) -> None:
    told = [CliRunner().invoke(build(), [word]).stdout for word in ("version", "--version")]
    assert told[0] == told[1] != ""


def test_version_names_podium_and_python(home: Path) -> None:
    found = json.loads(CliRunner().invoke(build(), ["version", "-o", "json"]).stdout)
    assert set(found) == {"podium", "python", "platform"}


def test_completion_tells_no_version() -> None:
    done = run(_PODIUM_COMPLETE="complete_bash", COMP_WORDS="podium --version ", COMP_CWORD="2")
    assert "Python" not in done.stdout
    assert "rollout" in done.stdout


def test_completion_knows_the_commands() -> None:
    done = run(_PODIUM_COMPLETE="complete_bash", COMP_WORDS="podium roll", COMP_CWORD="1")
    assert done.stdout.split() == ["rollout", "rollback"] or set(done.stdout.split()) == {
        "rollout",
        "rollback",
    }
