"""A small package index in a folder, with a stand-in for the runtime's wheel: real uv, no network."""

import base64
import hashlib
import io
import tarfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from podium.environments.uv import Environments, EnvironmentState

HERE = "3.11"


def make_wheel(
    folder: Path,
    name: str,
    version: str,
    *,
    files: Mapping[str, str] | None = None,
    requires: Sequence[str] = (),
) -> Path:
    info = f"{name}-{version}.dist-info"
    content = {f"{name}.py": f"version = {version!r}\n", **(files or {})}
    lines = [
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}",
        *[f"Requires-Dist: {one}" for one in requires],
    ]
    content[f"{info}/METADATA"] = "\n".join(lines) + "\n"
    content[f"{info}/WHEEL"] = (
        "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    record = ""
    for path, text in content.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(text)}\n"
    content[f"{info}/RECORD"] = record + f"{info}/RECORD,,\n"
    folder.mkdir(exist_ok=True)
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in content.items():
            archive.writestr(path, text)
    return wheel


def make_sdist(folder: Path, name: str, version: str, setup: str) -> None:
    members = {"setup.py": setup, "PKG-INFO": f"Metadata-Version: 1.0\nName: {name}\nVersion: {version}\n"}
    with tarfile.open(folder / f"{name}-{version}.tar.gz", "w:gz") as archive:
        for path, text in members.items():
            member = tarfile.TarInfo(f"{name}-{version}/{path}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))


class Shelf:
    """The index (`folder`), the runtime's wheel, and environments in `root`."""

    def __init__(self, place: Path) -> None:
        self.folder, self.root = place / "index", place / "environments of a user"
        make_wheel(self.folder, "serving", "1.4")
        make_wheel(self.folder, "plain", "1.0")
        make_wheel(self.folder, "plain", "2.0")
        self.wheel = make_wheel(place / "own", "podium_runtime", "0.1.0", requires=["serving>=1"])
        self.wheel_sha256 = hashlib.sha256(self.wheel.read_bytes()).hexdigest()

    def environments(self, max_bytes: int = 2**40) -> Environments:
        return Environments(self.root, wheel=self.wheel, max_bytes=max_bytes)

    def lock(self, *requirements: str) -> str:
        return self.environments().resolve(requirements, HERE).text

    def digest(self, lock: str) -> str:
        return Environments.digest(hashlib.sha256(lock.encode()).hexdigest(), HERE, self.wheel_sha256)

    def done(
        self, lock: str, environments: Environments | None = None, python: str = HERE
    ) -> EnvironmentState:
        environments = environments or self.environments()
        deadline = time.monotonic() + 60
        while (state := environments.ensure(lock, python, self.wheel_sha256)).phase == "building":
            assert time.monotonic() < deadline, state
            time.sleep(0.02)
        return state


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    for name in ("UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("UV_DEFAULT_INDEX", (tmp_path / "empty").as_uri())
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    return Shelf(tmp_path)
