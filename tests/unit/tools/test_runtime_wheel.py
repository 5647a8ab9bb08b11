"""podium carries the runtime's wheel: built from the checkout, the same bytes each time, found by the installation."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from hatch_build import build_runtime_wheel

ROOT = Path(__file__).resolve().parents[3]
_ONLY_SOURCES = shutil.ignore_patterns("__pycache__", "*.whl", ".build-*")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the build reads, apart from the checkout that the tests run in."""
    root = tmp_path / "podium"
    root.mkdir()
    for name in ("pyproject.toml", "hatch_build.py", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, root)
    (root / "README.md").write_text("# Podium\n")
    shutil.copytree(ROOT / "runtime", root / "runtime", ignore=_ONLY_SOURCES)
    shutil.copytree(ROOT / "src", root / "src", ignore=_ONLY_SOURCES)
    return root


def build(root: Path, target: str) -> Path:
    """Build podium itself as an installer would, without isolation (no network); the path of what was built."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", "out"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = (root / "out").glob("*.whl" if target == "wheel" else "*.tar.gz")
    return built


def test_the_same_sources_give_the_same_bytes(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build_runtime_wheel(checkout).read_bytes()
    # Another time, other times of the files, another umask, caches lying about.
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    for path in (checkout / "runtime").rglob("*.py"):
        os.utime(path, (1, 1_600_000_000))
        path.chmod(0o600)
    cache = checkout / "runtime" / "src" / "podium_runtime" / "__pycache__"
    cache.mkdir()
    (cache / "x.cpython-311.pyc").write_bytes(b"x")
    assert build_runtime_wheel(checkout).read_bytes() == first
    assert os.environ["SOURCE_DATE_EPOCH"] == "1700000000"


def test_other_sources_give_other_bytes_and_replace_the_old_wheel(checkout: Path) -> None:
    old = build_runtime_wheel(checkout)
    before = old.read_bytes()
    project = checkout / "runtime" / "pyproject.toml"
    project.write_text(project.read_text().replace('version = "0.1.0"', 'version = "0.1.1"'))
    new = build_runtime_wheel(checkout)
    assert new.name == "podium_runtime-0.1.1-py3-none-any.whl"
    assert new.read_bytes() != before
    assert [path.name for path in new.parent.iterdir() if path.name != "__init__.py"] == [new.name]


def test_podiums_wheel_holds_the_runtimes_also_when_built_from_the_sdist(
    checkout: Path, tmp_path: Path
) -> None:
    expected = build_runtime_wheel(checkout).read_bytes()
    with tarfile.open(build(checkout, "sdist")) as sdist:
        sdist.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    assert (unpacked / "runtime" / "pyproject.toml").is_file()
    for root in (checkout, unpacked):
        with zipfile.ZipFile(build(root, "wheel")) as wheel:
            (name,) = [name for name in wheel.namelist() if name.endswith(".whl")]
            assert name == "podium/_wheels/podium_runtime-0.1.0-py3-none-any.whl"
            assert wheel.read(name) == expected


def test_without_the_runtimes_sources_the_build_says_so(checkout: Path) -> None:
    shutil.rmtree(checkout / "runtime")
    with pytest.raises(FileNotFoundError, match="whole checkout"):
        build_runtime_wheel(checkout)


def test_the_wheel_of_an_installation_is_found_or_the_error_says_what_to_do(checkout: Path) -> None:
    folder = checkout / "src" / "podium" / "_wheels"
    # By path: what is under test is the installation in `checkout`, not the one that runs this test.
    spec = importlib.util.spec_from_file_location("installed_wheels", folder / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    installed = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(installed)

    with pytest.raises(installed.RuntimeWheelMissing, match="found none; in a checkout run `make setup`"):
        installed.runtime_wheel()
    built = build_runtime_wheel(checkout)
    assert installed.runtime_wheel() == built.resolve()
    (folder / "podium_runtime-9.9.9-py3-none-any.whl").write_bytes(b"")
    with pytest.raises(installed.RuntimeWheelMissing, match=r"found several: .*0\.1\.0.* .*9\.9\.9"):
        installed.runtime_wheel()
