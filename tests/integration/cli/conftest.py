"""`podium` run in this process against a real API server on loopback."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from podium.cli.application import build
from tests.integration.api.conftest import push_versions
from tests.integration.api.server import ApiServer, serving


@dataclass(frozen=True)
class Result:
    """What a command said."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Its stdout as JSON."""
        return json.loads(self.out)


Podium = Callable[..., Result]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    (tmp_path / "server").mkdir(mode=0o700)
    with serving(tmp_path / "server") as running:
        yield running


@pytest.fixture
def churn(server: ApiServer) -> ApiServer:
    """With a model `churn`, versions 1 and 2; `champion` is 1."""
    push_versions(server)
    return server


@pytest.fixture
def podium(server: ApiServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Podium:
    """Runs a command line; `code` is the exit code that is expected."""
    monkeypatch.setenv("PODIUM_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("PODIUM_URL", server.url)
    monkeypatch.setenv("PODIUM_TOKEN", server.admin_token)
    monkeypatch.chdir(tmp_path)
    app = build()

    def run(*arguments: str, code: int = 0, stdin: str | None = None) -> Result:
        found = CliRunner().invoke(app, list(arguments), input=stdin)
        result = Result(found.exit_code, found.stdout, found.stderr)
        assert result.code == code, (
            f"exit code {result.code}\n{result.out}\n{result.err}\n{found.exception!r}"
        )
        assert "Traceback" not in result.out + result.err
        assert server.admin_token not in result.out + result.err
        return result

    return run
