"""Byte code for an environment's packages, compiled once per content and shared by all environments of this user.

A replica may write no byte code and would compile its packages again at each start, so environments come with it; but
to compile scikit-learn and what it needs takes 8 s of processor time, and most environments differ in few packages.
What was compiled is kept beside uv's cache under the sha256 of its source, and linked into the environments.
Called by `building`.

Who may write there decides what models run, so only what this module had compiled just now gets in: byte code that a
wheel brings along is compiled over. The interpreter puts a file's true path into code that it loads, so tracebacks are
right wherever the code was compiled. Nothing here can make a build fail: without the store, everything is compiled.
"""

import contextlib
import hashlib
import math
import os
import re
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Tests inside packages are never imported by a model: a third of the files of scikit-learn, pandas and scipy.
_LEFT_OUT = frozenset({"test", "tests", "__pycache__"})
_ENTRY = re.compile(r"([0-9a-f]{64})\.(\d+)")
_UNUSED_SECONDS = 30 * 86_400.0
"""How long what no environment holds any more is kept."""
_FEW = 100
"""So many files for each process that compiles: fewer are not worth its start."""
_ASK = "import importlib.util as u, sys; print(sys.implementation.cache_tag, u.MAGIC_NUMBER.hex())"


def store_folder() -> Path:
    """Where byte code is kept: `podium/bytecode` in the user's cache folder, as uv keeps its own in `uv`."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    base = cache if os.path.isabs(cache) else os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base, "podium", "bytecode")


def provide(library: Path, interpreter: Path, store: Path, *, held: int) -> None:
    """Give every module below `library` its byte code, from the `store` or compiled by `interpreter`.

    A file that does not compile (some packages carry templates or other Pythons' code) is left as it is. `held` is kept
    open by the compiler, for as long as it runs.
    """
    answer = _run(interpreter, ["-c", _ASK], held=held).split()
    if len(answer) != 2:  # an interpreter that keeps no byte code
        return
    tag, magic = answer
    shelf = store / f"{tag}-{magic}"
    usable = _is_ours(shelf)
    known = dict(_entries(shelf)) if usable else {}
    missing = []
    for source in _sources(library.absolute()):
        digest = hashlib.sha256(source.read_bytes()).hexdigest()
        kept = known.get(digest)
        if kept is None or not _put(kept, _compiled(source, tag)):
            missing.append((source, digest))
    _compile([source for source, _ in missing], interpreter, held)
    for source, digest in missing if usable else ():
        made = _compiled(source, tag)
        with contextlib.suppress(OSError):
            made.chmod(0o444)
            # The size is in the name: after a power cut a file may be shorter than it was.
            _put(made, shelf / f"{digest}.{made.stat().st_size}")


def collect(store: Path) -> int:
    """Remove byte code that no environment has held for thirty days; how many files went.

    An environment holds it by a hard link, and the last one that goes changes the time of the inode.
    """
    gone = 0
    for shelf in _folders(store):
        for _, kept in _entries(shelf):
            with contextlib.suppress(OSError):
                about = kept.stat()
                if about.st_nlink == 1 and time.time() - about.st_ctime > _UNUSED_SECONDS:
                    kept.unlink()
                    gone += 1
    return gone


def _is_ours(shelf: Path) -> bool:
    """Whether this user alone can write there; it is made where it is missing."""
    try:
        shelf.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = shelf.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(about.st_mode) and about.st_uid == os.geteuid() and not about.st_mode & 0o022


def _sources(library: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(library):
        folders[:] = [name for name in folders if name not in _LEFT_OUT]
        for name in names:
            path = Path(place, name)
            # The compiler takes one name per line.
            if name.endswith(".py") and str(path).isprintable() and stat.S_ISREG(path.lstat().st_mode):
                yield path


def _compiled(source: Path, tag: str) -> Path:
    return source.parent / "__pycache__" / f"{source.stem}.{tag}.pyc"


def _folders(store: Path) -> list[Path]:
    try:
        return [path for path in store.iterdir() if path.is_dir() and not path.is_symlink()]
    except OSError:
        return []


def _entries(shelf: Path) -> Iterator[tuple[str, Path]]:
    """(sha256 of the source, its byte code), those that are as long as they were written."""
    with contextlib.suppress(OSError), os.scandir(shelf) as found:
        for entry in found:
            match = _ENTRY.fullmatch(entry.name)
            if match and entry.stat(follow_symlinks=False).st_size == int(match[2]):
                yield match[1], Path(entry.path)


def _put(file: Path, place: Path) -> bool:
    """The same file under another name, in one step; a copy where links do not reach (another file system, too many
    links). False if neither can be."""
    draft = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        place.parent.mkdir(exist_ok=True)
        draft.unlink(missing_ok=True)
        try:
            os.link(file, draft)
        except OSError:
            shutil.copy2(file, draft)
        draft.replace(place)
        # Onto another name of the same file a rename does nothing.
        draft.unlink(missing_ok=True)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        return False
    return True


def _compile(sources: Sequence[Path], interpreter: Path, held: int) -> None:
    """Compile these over whatever lies there. Checked by nobody afterwards: an environment never changes."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parts = min(processors, math.ceil(len(sources) / _FEW))
    arguments = ["-m", "compileall", "-f", "-qq", "--invalidation-mode", "unchecked-hash", "-i", "-"]

    def one(part: int) -> None:
        _run(interpreter, arguments, held=held, given="\n".join(map(str, sources[part::parts])))

    with ThreadPoolExecutor(max(parts, 1)) as pool:
        list(pool.map(one, range(parts)))


def _run(interpreter: Path, arguments: Sequence[str], *, held: int, given: str = "") -> str:
    """-I -S: nothing of an environment is run, only the installation's own library."""
    done = subprocess.run(
        [interpreter, "-I", "-S", *arguments], env={"LANG": "C.UTF-8"}, input=given, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, cwd="/", check=False, pass_fds=[held], encoding="utf-8", errors="surrogateescape",
    )  # fmt: skip
    return done.stdout
