"""Checks a version's files against its manifest, then becomes the command that serves them.

Run by the shim inside the replica's box, as `python -I -S -B <this file> CONFIG.json`, for servers that know nothing of
manifests (Podium's own model server checks by itself). Standard library alone, of the environment's own interpreter:
nothing of the packages there is imported, and nothing of the version is looked at but its bytes.

Ends with `DAMAGED` when bytes differ, with 127 or 126 when the program is not there or cannot be run.
"""

import hashlib
import json
import os
import stat
import sys
from typing import NoReturn

DAMAGED = 113
"""Exit code; an unusual one, because every other is the command's own."""
_NOT_FOUND, _CANNOT_RUN = 127, 126
_CHUNK = 2**20


class Damaged(Exception):
    """The bytes on disk are not those of the manifest; the message says where."""


def check(folder: str, manifest_path: str, digest: str) -> None:
    """`folder` holds exactly the files of the manifest, whose own bytes have this digest. Raises Damaged."""
    try:
        with open(manifest_path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise Damaged(f"the manifest cannot be read: {error.strerror}") from None
    found = "sha256:" + hashlib.sha256(content).hexdigest()
    if found != digest:
        raise Damaged(f"the manifest's bytes have digest {found}, approved is {digest}")
    files = {file["path"]: file for file in json.loads(content)["files"]}
    there = set(_walk(folder))
    for path in sorted(there - set(files)):
        raise Damaged(f"{path}: this file is in the version's folder but not in its manifest")
    for path, file in sorted(files.items()):
        if path not in there:
            raise Damaged(f"{path}: is missing")
        _check_file(os.path.join(folder, path), path, file["size"], file["sha256"])


def _walk(folder: str) -> list[str]:
    """Paths of all that is not a folder; links to folders are not followed, and so count as files."""
    found = []
    for parent, folders, names in os.walk(folder, onerror=_unreadable):
        links = [name for name in folders if os.path.islink(os.path.join(parent, name))]
        found += [os.path.relpath(os.path.join(parent, name), folder) for name in names + links]
    return found


def _unreadable(error: OSError) -> None:
    raise Damaged(f"the version's folder cannot be read: {error.strerror}")


def _check_file(place: str, path: str, size: int, sha256: str) -> None:
    try:
        handle = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(handle, "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise Damaged(f"{path}: not a regular file")
            hasher, read = hashlib.sha256(), 0
            while chunk := file.read(_CHUNK):
                hasher.update(chunk)
                read += len(chunk)
    except OSError as error:
        raise Damaged(f"{path}: cannot be read: {error.strerror}") from None
    if read != size:
        raise Damaged(f"{path}: {read} bytes are stored, the manifest says {size}")
    if hasher.hexdigest() != sha256:
        raise Damaged(
            f"{path}: the stored bytes have sha256 {hasher.hexdigest()}, the manifest says {sha256}"
        )


def become(command: list[str]) -> NoReturn:
    """Replace this process by the command; a bare name is looked for in PATH, the environment's programs first."""
    try:
        os.execvp(command[0], command)  # noqa: S606 - no shell, on purpose
    except FileNotFoundError:
        where = f"PATH ({os.environ['PATH']})" if "/" not in command[0] else "that place"
        end(_NOT_FOUND, f"{command[0]}: no such program in {where}; is its package among the requirements?")
    except OSError as error:
        end(_CANNOT_RUN, f"{command[0]}: cannot be run: {error.strerror}")


def end(code: int, words: str) -> NoReturn:
    """The last words go to the replica's log, which is where a person looks."""
    sys.stderr.write(f"{words}\n")
    sys.stderr.flush()
    os._exit(code)


def main() -> NoReturn:
    """The whole of it; the argument is a file with modelPath, manifestPath, manifestDigest and command."""
    with open(sys.argv[1], "rb") as file:
        config = json.load(file)
    try:
        check(config["modelPath"], config["manifestPath"], config["manifestDigest"])
    except Damaged as error:
        end(DAMAGED, f"not started: {error}")
    become(config["command"])


if __name__ == "__main__":
    main()
