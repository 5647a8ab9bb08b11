"""Files appear whole or not at all, unchanged ones are not touched, and there is a way back."""

import os
import stat
from pathlib import Path

import pytest

from podium.gateway.envoy_log import EnvoyLog
from podium.gateway.files import WatchedFiles
from podium.gateway.render.document import document
from podium.gateway.settings import KINDS, ROUTES, GatewaySettings, Layout
from podium.resources.errors import Refused

A, B, C = (document([b'{"n":%d}' % number]) for number in (1, 2, 3))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = GatewaySettings(home=tmp_path / "home", name="g", server_url="http://s").layout
    made.prepare()
    return made


def test_unchanged_content_is_not_written(layout: Layout) -> None:
    files = WatchedFiles(layout)
    assert files.version(ROUTES) is None
    assert files.write(ROUTES, A)
    path = layout.document(ROUTES)
    before = path.stat()
    assert not files.write(ROUTES, A)
    assert not WatchedFiles(layout).write(ROUTES, A)
    assert path.stat().st_ino == before.st_ino
    assert stat.S_IMODE(before.st_mode) == 0o600


def test_the_way_back_leads_to_what_was_seen_loaded(layout: Layout) -> None:
    files = WatchedFiles(layout)
    files.write(ROUTES, A)
    files.confirm(ROUTES)
    assert not files.unconfirmed(ROUTES)
    files.write(ROUTES, B)
    files.write(ROUTES, C)
    # A new agent finds the same way back.
    files = WatchedFiles(layout)
    assert files.unconfirmed(ROUTES)
    assert files.version(ROUTES) == C.version
    assert files.restore(ROUTES)
    assert files.version(ROUTES) == A.version
    assert files.read(ROUTES) == A.content
    assert not files.restore(ROUTES)


def test_confirmed_content_stays(layout: Layout) -> None:
    files = WatchedFiles(layout)
    files.write(ROUTES, A)
    files.confirm(ROUTES)
    files.write(ROUTES, B)
    files.confirm(ROUTES)
    assert not files.restore(ROUTES)
    assert files.read(ROUTES) == B.content


def test_a_full_disk_leaves_the_old_content(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    files = WatchedFiles(layout)
    files.write(ROUTES, A)
    files.confirm(ROUTES)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            files.write(ROUTES, B)
    assert layout.document(ROUTES).read_bytes() == A.content
    assert files.version(ROUTES) == A.version
    assert [path.name for path in layout.document(ROUTES).parent.iterdir()] == ["routes.json"]
    assert files.write(ROUTES, B)


def test_folders_are_private_and_apart(layout: Layout) -> None:
    for folder in (layout.home, layout.run):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folders = {layout.document(kind).parent for kind in KINDS}
    assert len(folders) == len(KINDS)


def test_a_deep_home_has_its_sockets_elsewhere(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    layout = GatewaySettings(home=deep, name="g", server_url="http://s").layout
    try:
        layout.prepare()
        assert len(os.fsencode(layout.admin_socket)) <= 107
        assert layout.run == GatewaySettings(home=deep, name="other", server_url="http://s").layout.run
    finally:
        layout.run.rmdir()


def test_a_run_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (tmp_path / "run").symlink_to(target)
    layout = GatewaySettings(
        home=tmp_path / "h", name="g", server_url="http://s", run_folder=tmp_path / "run"
    ).layout
    with pytest.raises(Refused, match="folder of this user"):
        layout.prepare()


def test_the_token_is_not_shown() -> None:
    assert "secret" not in repr(
        GatewaySettings(home=Path("/h"), name="g", server_url="http://s", token="secret")
    )


def test_envoys_words(tmp_path: Path) -> None:
    path = tmp_path / "log"
    words = EnvoyLog(path)
    assert words.mark() == 0
    assert words.refusal_since(0) is None
    path.write_text(
        "[2026-01-01 00:00:00.000][1][warning][config] [a.cc:81] Filesystem config update rejected: old\n"
    )
    mark = words.mark()
    assert words.refusal_since(mark) is None
    with path.open("a") as file:
        file.write("[2026-01-01 00:00:01.000][1][warning][main] [b.cc:1] something else\n")
        file.write(
            "[2026-01-01 00:00:02.000][1][warning][config] [a.cc:81] Filesystem config update rejected: "
            "Invalid duration: Expected positive duration: goo.gle/debugproto  \nseconds: -5\n\n"
        )
        file.write("[2026-01-01 00:00:03.000][1][warning][main] [b.cc:1] more\n")
    assert words.refusal_since(mark) == "Invalid duration: Expected positive duration: seconds: -5"
    # Emptied meanwhile: what is in it now is new.
    path.write_text(
        "[2026-01-01 00:00:04.000][1][w][c] [a.cc:1] Filesystem config update failure: in x, bad JSON\n"
    )
    assert words.refusal_since(mark) == "in x, bad JSON"
