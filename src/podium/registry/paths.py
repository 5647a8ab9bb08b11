"""Are the paths of a pushed version safe and unambiguous on every system that may read them?

Called by `intake`, `folder` and `mlflow_source`. `FileEntry` has checked each path by itself already
(`resources.manifest.check_path`); this looks harder, and at all of them together.
"""

import unicodedata
from collections.abc import Sequence
from urllib.parse import unquote

from podium.resources.errors import InvalidInput, Issue, TooLarge
from podium.resources.manifest import FileEntry, check_path

_MOST_ISSUES = 20
_RESERVED = frozenset(
    {"con", "prn", "aux", "nul"} | {f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10)}
)


def check_portable(path: str) -> None:
    """Raise ValueError for a path that some system, or some reader that decodes it, would take for another one."""
    check_path(path)
    decoded = path
    for _ in range(4):
        again = unquote(decoded)
        if again == decoded:
            break
        check_path(again)
        decoded = again
    else:
        raise ValueError("expected a path that is not percent-encoded over and over")
    for part in path.split("/"):
        if part != part.strip() or part.endswith("."):
            raise ValueError("expected no part that starts or ends with a space, or ends with '.'")
        if part.split(".")[0].casefold() in _RESERVED:
            raise ValueError(f"{part[:40]!r} is the name of a device on some systems")
        if any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") for character in part):
            raise ValueError("expected no control, formatting or private characters")


def check_files(files: Sequence[FileEntry], *, max_files: int, max_bytes: int) -> None:
    """Raise InvalidInput naming every wrong path, or TooLarge: too many files, or too many bytes together."""
    if len(files) > max_files:
        raise TooLarge(
            f"files: {len(files)} files are more than the {max_files} that are allowed in a version"
        )
    total = sum(file.size for file in files)
    if total > max_bytes:
        raise TooLarge(f"files: {total} bytes are more than the {max_bytes} that are allowed in a version")
    issues = []
    for index, file in enumerate(files):
        try:
            check_portable(file.path)
        except ValueError as error:
            issues.append(Issue(f"files[{index}].path", str(error)))
    issues += _collisions(files)
    if issues:
        raise InvalidInput(issues[:_MOST_ISSUES])


def _collisions(files: Sequence[FileEntry]) -> list[Issue]:
    """Paths that are the same file where upper and lower case, or ways to write an accent, make no difference; and
    paths that are a file here and a folder there."""
    issues = []
    spelled: dict[str, str] = {}
    as_file: set[str] = set()
    for index, file in enumerate(files):
        parts = file.path.split("/")
        for depth in range(1, len(parts) + 1):
            path = "/".join(parts[:depth])
            folded = _fold(path)
            if spelled.setdefault(folded, path) != path:
                words = f"{path[:200]!r} and {spelled[folded][:200]!r} are the same path on some systems"
                issues.append(Issue(f"files[{index}].path", words))
                break
            is_file = depth == len(parts)
            if folded in as_file:
                words = "stands there twice" if is_file else f"goes through {path[:200]!r}, which is a file"
                issues.append(Issue(f"files[{index}].path", words))
                break
            if is_file:
                as_file.add(folded)
    folders = {_fold(f.path.rpartition("/")[0]) for f in files if "/" in f.path}
    folders |= {
        "/".join(folder.split("/")[:depth]) for folder in folders for depth in range(1, folder.count("/") + 1)
    }
    issues += [
        Issue(f"files[{index}].path", "is a file here, and a folder of another file's path")
        for index, file in enumerate(files)
        if _fold(file.path) in folders
    ]
    return list(dict.fromkeys(issues))


def _fold(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
