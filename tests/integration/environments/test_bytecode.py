"""Byte code that environments share: compiled by a real interpreter, once per content, never what a wheel brings."""

import errno
import importlib.util
import marshal
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

import pytest

from podium.environments import bytecode

from .conftest import Shelf, make_wheel

pytestmark = pytest.mark.integration
PYTHON = Path(sys.executable).resolve()
TAG = sys.implementation.cache_tag
UNCHECKED = 1


class Libraries:
    """Folders with modules, and one store."""

    def __init__(self, root: Path, lock: int) -> None:
        self.root, self.store, self._lock = root, root / "store", lock

    def make(self, name: str, **modules: str) -> Path:
        library = self.root / name
        library.mkdir()
        for module, text in modules.items():
            (library / f"{module}.py").write_text(text)
        return library

    def provide(self, library: Path) -> None:
        bytecode.provide(library, PYTHON, self.store, held=self._lock)

    def kept(self) -> list[Path]:
        return sorted(path for path in self.store.rglob("*") if path.is_file())


@pytest.fixture
def libraries(tmp_path: Path) -> Iterator[Libraries]:
    with (tmp_path / "lock").open("w") as lock:
        yield Libraries(tmp_path, lock.fileno())


def compiled(library: Path, module: str) -> Path:
    return library / "__pycache__" / f"{module}.{TAG}.pyc"


def code_of(file: Path) -> CodeType:
    content = file.read_bytes()
    assert content[:4] == importlib.util.MAGIC_NUMBER
    assert struct.unpack("<L", content[4:8]) == (UNCHECKED,)
    code = marshal.loads(content[16:])
    assert isinstance(code, CodeType)
    return code


def says(library: Path, code: str) -> str:
    done = subprocess.run(
        [PYTHON, "-I", "-B", "-S", "-c", f"import sys; sys.path.insert(0, {str(library)!r}); {code}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.strip() + done.stderr.strip()


def test_what_was_compiled_once_is_shared_and_knows_its_true_path(libraries: Libraries) -> None:
    text = "def fails(): raise KeyError\n"
    first, second = libraries.make("first", a=text), libraries.make("second", renamed=text, other="x = 1\n")
    libraries.provide(first)
    libraries.provide(second)
    assert compiled(first, "a").samefile(compiled(second, "renamed"))
    assert len(libraries.kept()) == 2
    assert f'File "{second / "renamed.py"}", line 1' in says(second, "import renamed; renamed.fails()")


def test_an_environment_gets_the_byte_code_of_another(shelf: Shelf) -> None:
    make_wheel(shelf.folder, "other", "1.0")
    states = [shelf.done(shelf.lock(*wanted)) for wanted in (["plain"], ["plain", "other"])]
    found = [
        next(state.python.parents[1].rglob(f"plain.{TAG}.pyc"))
        for state in states
        if state.python is not None
    ]
    assert found[0].samefile(found[1])
    assert bytecode.store_folder().is_relative_to(shelf.root.parent)


def test_what_a_wheel_brings_is_compiled_over_and_never_shared(libraries: Libraries) -> None:
    """The same source with byte code that does something else, made to look up to date in each way there is."""
    text = "value = 'of the source'\n"
    evil = compile("value = 'planted'\n", "x", "exec")
    for number, flags in enumerate((0, UNCHECKED)):
        library = libraries.make(f"evil{number}", module=text)
        seen = (library / "module.py").stat()
        compiled(library, "module").parent.mkdir()
        fields = struct.pack("<4sLLL", importlib.util.MAGIC_NUMBER, flags, int(seen.st_mtime), seen.st_size)
        compiled(library, "module").write_bytes(fields + marshal.dumps(evil))
        assert says(library, "import module; print(module.value)") == "planted"
        libraries.provide(library)
        assert says(library, "import module; print(module.value)") == "of the source"
    assert ["of the source" in code_of(kept).co_consts for kept in libraries.kept()] == [True]


def test_a_name_that_is_two_lines_reaches_no_other_file(libraries: Libraries) -> None:
    elsewhere = libraries.make("elsewhere", b="x = 1\n")
    library = libraries.make("library", fine="x = 2\n")
    (library / "a\n").mkdir()
    strange = library / "a\n" / str(elsewhere).lstrip("/")
    strange.mkdir(parents=True)
    (strange / "b.py").write_text("x = 3\n")
    libraries.provide(library)
    assert compiled(library, "fine").exists()
    assert not (elsewhere / "__pycache__").exists()


def test_links_tests_and_what_does_not_compile_are_left_alone(libraries: Libraries) -> None:
    library = libraries.make("library", broken="def (:\n", fine="x = 1\n")
    (library / "link.py").symlink_to(library / "fine.py")
    shutil.copytree(library, libraries.root / "copy", symlinks=True)
    (libraries.root / "copy").rename(library / "tests")
    libraries.provide(library)
    assert sorted(path.name for path in library.rglob("*.pyc")) == [f"fine.{TAG}.pyc"]
    assert len(libraries.kept()) == 1


def test_an_entry_that_lost_its_end_is_made_anew(libraries: Libraries) -> None:
    libraries.provide(libraries.make("first", a="x = 1\n"))
    (kept,) = libraries.kept()
    shutil.rmtree(libraries.root / "first")
    kept.chmod(0o600)
    os.truncate(kept, 20)
    second = libraries.make("second", a="x = 1\n")
    libraries.provide(second)
    assert says(second, "import a; print(a.x)") == "1"
    assert any(path.samefile(compiled(second, "a")) for path in libraries.kept())


@pytest.mark.parametrize("harm", ["others may write", "a file in the way", "a link in the way"])
def test_a_store_that_cannot_be_trusted_is_not_used(libraries: Libraries, harm: str) -> None:
    first = libraries.make("first", a="x = 1\n")
    if harm == "a file in the way":
        libraries.store.write_text("")
    else:
        libraries.provide(first)
        (shelf,) = libraries.store.iterdir()
        if harm == "others may write":
            shelf.chmod(0o770)
        else:
            shelf.rename(libraries.root / "theirs")
            shelf.symlink_to(libraries.root / "theirs")
    second = libraries.make("second", a="x = 1\n")
    libraries.provide(second)
    assert says(second, "import a; print(a.x)") == "1"
    assert compiled(second, "a").stat().st_nlink == 1


def test_where_links_do_not_reach_it_is_copied(libraries: Libraries, monkeypatch: pytest.MonkeyPatch) -> None:
    def elsewhere(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", elsewhere)
    first, second = libraries.make("first", a="x = 1\n"), libraries.make("second", a="x = 1\n")
    libraries.provide(first)
    libraries.provide(second)
    (kept,) = libraries.kept()
    assert compiled(second, "a").read_bytes() == kept.read_bytes() == compiled(first, "a").read_bytes()
    assert compiled(second, "a").stat().st_mtime == kept.stat().st_mtime


def test_what_no_environment_holds_goes_after_its_time(
    libraries: Libraries, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = libraries.make("first", a="x = 1\n"), libraries.make("second", b="x = 2\n")
    libraries.provide(first)
    libraries.provide(second)
    shutil.rmtree(first)
    assert bytecode.collect(libraries.store) == 0
    later = time.time() + 31 * 86_400
    monkeypatch.setattr(time, "time", lambda: later)
    assert bytecode.collect(libraries.store) == 1
    assert compiled(second, "b").samefile(libraries.kept()[0])


def test_nothing_to_collect_where_nothing_is(tmp_path: Path) -> None:
    assert bytecode.collect(tmp_path / "missing") == 0


@pytest.mark.parametrize(("cache", "home"), [("/c", "/c"), ("", "~/.cache"), ("relative", "~/.cache")])
def test_it_lies_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, cache: str, home: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", cache)
    assert bytecode.store_folder() == Path(home).expanduser() / "podium" / "bytecode"
