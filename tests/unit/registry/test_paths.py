"""Paths of pushed files: hostile ones are refused, each with its field."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from podium.registry.paths import check_files, check_portable
from podium.resources.errors import InvalidInput, TooLarge
from podium.resources.manifest import FileEntry
from podium.resources.requests import PushRequest

HOSTILE = [
    "../model.pkl", "a/../../b", "..", ".", "./a", "a/./b", "a//b", "/etc/passwd", "a/", "", "..\\model.pkl", "a\\b",
    "C:\\model.pkl", "C:model.pkl", "\\\\host\\share", "a\x00b", "a\nb", "a\x1b[31m", "x" * 256, "a/" * 512 + "b",
    "é" * 128,
]  # fmt: skip
UNPORTABLE = [
    "%2e%2e/model.pkl", "%2e%2e%2fmodel.pkl", "%252e%252e%252fmodel.pkl", "..%2fmodel.pkl", "%2fetc%2fpasswd",
    "a%5c..%5cb", "a%00b", "%25252525252e%2e/x", "con", "a/NUL.txt", "com1.bin", "a. /b", "a./b", " a", "a ", "..." ,
    "a\u202eb", "a\u200bb", "a\x7fb", "a\x85b", "a\u2028b", "a\ue000b",
]  # fmt: skip
FINE = [
    "MLmodel", "model.pkl", "code/pkg/__init__.py", "a b/ü 漢字.bin", "50%.txt", "a#b", ".hidden", "..a", "a..b",
    "x" * 255, "artifacts/model@v1+cpu=1,2.bin", "console.txt",
]  # fmt: skip


def entry(path: str, size: int = 1) -> FileEntry:
    return FileEntry.model_construct(
        path=path, size=size, sha256=hashlib.sha256(path.encode("utf-8", "replace")).hexdigest()
    )


@pytest.mark.parametrize("path", HOSTILE)
def test_a_hostile_path_never_becomes_a_file_entry(path: str) -> None:
    document = {"files": [{"path": path, "size": 1, "sha256": "0" * 64}]}
    with pytest.raises(ValidationError) as error:
        PushRequest.model_validate(document)
    assert error.value.errors()[0]["loc"][:3] == ("files", 0, "path")
    with pytest.raises(ValueError, match="expected"):
        check_portable(path)


@pytest.mark.parametrize("path", UNPORTABLE)
def test_a_path_that_some_reader_takes_for_another_is_refused(path: str) -> None:
    with pytest.raises(InvalidInput) as error:
        check_files([entry("fine"), entry(path)], max_files=10, max_bytes=10)
    assert error.value.issues[0].field == "files[1].path"


@pytest.mark.parametrize("path", FINE)
def test_ordinary_paths_pass(path: str) -> None:
    check_files([FileEntry(path=path, size=1, sha256="0" * 64)], max_files=10, max_bytes=10)


@pytest.mark.parametrize(
    "paths",
    [
        ["a", "a"],
        ["Model.pkl", "model.PKL"],
        ["Data/x", "data/y"],
        ["stra\u00dfe", "STRASSE"],
        ["caf\u00e9", "cafe\u0301"],
        ["a", "a/b"],
        ["a/b", "a"],
        ["a/b/c", "A/B"],
    ],
)
def test_paths_that_collide_are_refused(paths: list[str]) -> None:
    with pytest.raises(InvalidInput, match=r"same path|twice|is a file|folder of another") as error:
        check_files([entry(path) for path in paths], max_files=10, max_bytes=10)
    assert all(issue.field.startswith("files[") for issue in error.value.issues)


def test_too_many_files_or_bytes_are_too_large() -> None:
    with pytest.raises(TooLarge, match="3 files"):
        check_files([entry("a"), entry("b"), entry("c")], max_files=2, max_bytes=100)
    with pytest.raises(TooLarge, match="101 bytes"):
        check_files([entry("a", 100), entry("b")], max_files=2, max_bytes=100)


@given(st.text(max_size=60))
def test_whatever_passes_stays_in_its_folder(text: str) -> None:
    try:
        check_portable(text)
    except ValueError:
        return
    import os.path

    assert not os.path.isabs(text)
    joined = os.path.normpath(os.path.join("/srv/folder", text))
    assert joined == f"/srv/folder/{text}"
    assert "\\" not in text
    text.encode("utf-8")
