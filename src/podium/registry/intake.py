"""What was pushed? Finds the flavor, the requirements, the Python version and the signature of a list of files.

Called by the API for a push and an import. Calls `paths`, `requirements` and the formats. Reads bytes from the blob
store; never unpickles, never imports anything of the model.
"""

import datetime
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from podium.registry import requirements
from podium.registry.blobs import BlobStore
from podium.registry.formats import FORMATS, FlavorName, Format, PushedFiles
from podium.registry.formats.custom import declared_flavor
from podium.registry.paths import check_files
from podium.resources.errors import InvalidInput, Issue
from podium.resources.manifest import FileEntry, Flavor, Signature
from podium.resources.requests import ImportRequest, PushRequest

FRESH_SECONDS = 3600
"""A blob that is older is made young again when a push uses it, so that garbage collection leaves it to the push."""
_MOST_ISSUES = 20
_PYTHON = re.compile(r"3\.[0-9]{1,2}")


@dataclass(frozen=True)
class Limits:
    """What one version may hold."""

    max_files: int = 10_000
    max_bytes: int = 100 * 2**30
    """Of all files together."""


@dataclass(frozen=True)
class PushHints:
    """What the pusher says about the files. None: find it out."""

    default_python: str
    """The version to use when neither the pusher nor the files name one, such as "3.11"."""
    flavor: FlavorName | None = None
    requirements: Sequence[str] | None = None
    python: str | None = None
    signature: Signature | None = None

    @classmethod
    def of(cls, request: PushRequest | ImportRequest, default_python: str) -> "PushHints":
        """The hints in a request."""
        if isinstance(request, ImportRequest):
            return cls(default_python, "mlflow", request.requirements, request.python)
        return cls(default_python, request.flavor, request.requirements, request.python, request.signature)


@dataclass(frozen=True)
class Draft:
    """A version before its requirements are resolved."""

    files: tuple[FileEntry, ...]
    """Sorted by path."""
    flavor: Flavor
    requirements: tuple[str, ...]
    """PEP 508, written in one way, sorted."""
    python: str
    python_stated: bool
    """False: nobody named a version, `python` is the default."""
    signature: Signature | None
    notes: tuple[str, ...]
    """What a person should know about choices that were made, in sentences."""


def draft(
    files: Sequence[FileEntry], hints: PushHints, blobs: BlobStore, *, limits: Limits | None = None
) -> Draft:
    """Look at pushed files, whose bytes must be in the blob store.

    Raises InvalidInput (unsafe or ambiguous paths, missing bytes, no or more than one known flavor, bad requirements,
    bad files), TooLarge, IntegrityError (a stored file is damaged) and Unavailable. Changes nothing.
    """
    limits = limits or Limits()
    if not files:
        raise InvalidInput(Issue("files", "expected at least one file"))
    check_files(files, max_files=limits.max_files, max_bytes=limits.max_bytes)
    given = requirements.parse_all(hints.requirements or (), "requirements")
    if hints.python is not None and not _PYTHON.fullmatch(hints.python):
        raise InvalidInput(Issue("python", "expected a version such as 3.11"))
    _check_stored(files, blobs)
    pushed = PushedFiles(files, blobs)
    reading = _format(pushed, hints.flavor).read(pushed, given)
    python = hints.python or reading.python
    return Draft(
        files=tuple(sorted(files, key=lambda file: file.path)),
        flavor=reading.flavor,
        requirements=tuple(requirements.merge(reading.requirements, given)),
        python=python or hints.default_python,
        python_stated=python is not None,
        signature=hints.signature or reading.signature,
        notes=reading.notes,
    )


def _format(files: PushedFiles, wanted: FlavorName | None) -> Format:
    wanted = wanted or declared_flavor(files, [known.name for known in FORMATS])
    if wanted is not None:
        return next(known for known in FORMATS if known.name == wanted)
    found = [known for known in FORMATS if known.recognises(files)]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(known.name for known in found)
        raise InvalidInput(
            Issue("flavor", f"the files look like more than one flavor: {names}"),
            next_step="say which with --flavor",
        )
    shown = ", ".join(path[:80] for path in files.paths[:5]) + (", ..." if len(files.paths) > 5 else "")
    raise InvalidInput(
        Issue(
            "files", f"no known model in {shown}. Known: " + "; ".join(known.description for known in FORMATS)
        ),
        next_step="push one of these, or put a podium.yaml beside your own class",
    )


def _check_stored(files: Sequence[FileEntry], blobs: BlobStore) -> None:
    """Every file's bytes are stored with the size that was said. Raises InvalidInput naming those that are not."""
    now = datetime.datetime.now(datetime.UTC)

    def check(numbered: tuple[int, FileEntry]) -> Issue | None:
        index, file = numbered
        stored = blobs.find(file.sha256)
        if stored is None:
            return Issue(
                f"files[{index}].sha256", f"the bytes of {file.path[:200]} are not stored; upload them first"
            )
        if stored.size != file.size:
            return Issue(f"files[{index}].size", f"{file.path[:200]} is stored with {stored.size} bytes")
        if (now - stored.modified_at).total_seconds() > FRESH_SECONDS:
            blobs.refresh(file.sha256)
        return None

    issues = list(_some(check, list(enumerate(files))))
    if issues:
        raise InvalidInput(issues)


def _some(
    check: Callable[[tuple[int, FileEntry]], Issue | None], items: list[tuple[int, FileEntry]]
) -> Iterator[Issue]:
    """The first few issues; a bucket answers many questions at once faster than one after the other."""
    found = 0
    with ThreadPoolExecutor(max_workers=16, thread_name_prefix="intake") as pool:
        for start in range(0, len(items), 256):
            for issue in pool.map(check, items[start : start + 256]):
                if issue is not None:
                    found += 1
                    yield issue
                if found == _MOST_ISSUES:
                    return
