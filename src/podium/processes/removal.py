"""Removes a folder that a stranger could write to, whatever was made of it.

Called by `supervision`. A hostile program can nest folders so deep that a recursive removal fails and no path reaches
the end, and can make folders that not even their owner may list. Nobody may be running in the folder any more.
"""

import os
import stat
from pathlib import Path

_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(folder: Path) -> None:
    """Remove `folder` and all in it; links are removed, not followed. No recursion, no path that grows.

    What lies in a folder of the folder is moved up one level, until there is nothing left to move. Raises OSError;
    FileNotFoundError where there is no such folder.
    """
    top = os.open(folder, _OPEN_FOLDER)
    serial = 0
    try:
        while names := os.listdir(top):
            for name in names:
                if not _is_folder(name, top):
                    os.unlink(name, dir_fd=top)
                    continue
                inner = _open(name, top)
                try:
                    for child in os.listdir(inner):
                        if not _is_folder(child, inner):
                            os.unlink(child, dir_fd=inner)
                            continue
                        # A folder that is moved is changed itself, so it must be writable.
                        os.close(_open(child, inner))
                        serial += 1
                        os.rename(child, f".removed-{os.getpid()}-{serial}", src_dir_fd=inner, dst_dir_fd=top)
                finally:
                    os.close(inner)
                os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)
    folder.rmdir()


def _is_folder(name: str, parent: int) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)


def _open(name: str, parent: int) -> int:
    """Open a folder that may have been made unreadable; from now on it is not."""
    os.chmod(name, 0o700, dir_fd=parent)
    return os.open(name, _OPEN_FOLDER, dir_fd=parent)
