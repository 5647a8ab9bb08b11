"""Where `podium gateway run` has its access record written: said wrong, it is refused before anything is made."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from podium.cli.application import build
from podium.cli.commands.gateways import _record_place
from podium.cli.exits import Exit


@pytest.mark.parametrize("said", ["no/such/folder/access.log", "."])
def test_a_place_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PODIUM_HOME", str(tmp_path / "home"))
    result = CliRunner().invoke(build(), ["gateway", "run", "gw-2", "--access-record", said])
    assert result.exit_code == Exit.ERROR
    assert (
        f"--access-record: expected on, off, or a file in a folder that is there, not '{said}'"
        in result.output
    )
    assert list(tmp_path.iterdir()) == []


def test_on_off_or_a_path_that_holds_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [_record_place(said) for said in ("on", "OFF")] == ["on", "off"]
    assert _record_place("mine.jsonl") == str(tmp_path / "mine.jsonl")
