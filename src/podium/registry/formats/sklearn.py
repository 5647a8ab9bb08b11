"""A single scikit-learn estimator in a file: pickle, joblib or skops.

Called by `intake`. The file is never unpickled: scikit-learn writes its version into the state of each of its
estimators (`_sklearn_version`, see BaseEstimator.__getstate__), and these bytes are looked for.
"""

import bz2
import lzma
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from packaging.requirements import Requirement

from podium.registry import requirements
from podium.registry.formats import archives
from podium.registry.formats.port import FlavorName, PushedFiles, Reading
from podium.resources.errors import InvalidInput, Issue
from podium.resources.manifest import Flavor

_SUFFIXES = (".pkl", ".pickle", ".joblib", ".skops")
_OVERLAP = 512
_MAX_SCANNED = 4 * 2**30
"""Bytes after decompression that are looked through."""
_STEP = 1024 * 1024
_VERSION = rb"[0-9]{1,4}(?:\.[0-9A-Za-z+-]{1,20}){1,5}"
# Pickle opcodes between the key and its value: memoizing (MEMOIZE, BINPUT, LONG_BINPUT, PUT) and a new frame (FRAME).
# Then the text: SHORT_BINUNICODE with one byte of length, BINUNICODE with four, UNICODE up to a newline.
_PICKLED = re.compile(
    rb"_sklearn_version\n?(?:\x94|q.|r.{4}|p[0-9]{1,9}\n)?(?:\x95.{8})?(?:\x8c(.)|X(.{4})|V)", re.DOTALL
)
_IN_SKOPS = re.compile(rb'"_sklearn_version":\s*\{[^{}]{0,300}?"content":\s*"\\"(' + _VERSION + rb')\\""')
_SKOPS = re.compile(rb'"_skops_version":\s*"(' + _VERSION + rb')"')
# An estimator that was trained on a pandas DataFrame remembers its columns, and wants them back by name.
_NAMED_COLUMNS = (b"feature_names_in_", b"pandas.core", b"pandas._libs")
_WRITTEN_BY_JOBLIB = (b"joblib.numpy_pickle",)
# Functions and classes that cloudpickle wrote by value are made again by functions of cloudpickle.
_WRITTEN_BY_CLOUDPICKLE = b"cloudpickle.cloudpickle"


@dataclass(frozen=True)
class _Found:
    """What the bytes tell."""

    versions: Mapping[str, Sequence[str]]
    """By package; one each where all is well."""
    columns: bool
    joblib: bool
    cloudpickle: bool


class SklearnFile:
    """Implements Format."""

    name: FlavorName = "sklearn"
    description = "a single scikit-learn estimator file (.pkl, .pickle, .joblib, .skops)"

    def recognises(self, files: PushedFiles) -> bool:
        return len(files.paths) == 1 and files.paths[0].lower().endswith(_SUFFIXES)

    def read(self, files: PushedFiles, given: Sequence[Requirement]) -> Reading:
        if not self.recognises(files):
            raise InvalidInput(
                Issue("files", f"expected one file whose name ends with {', '.join(_SUFFIXES)}")
            )
        path = files.paths[0]
        if path.lower().endswith(".skops"):
            return _read_skops(files, path, given)
        return _read_pickle(files, path, given)


def _read_pickle(files: PushedFiles, path: str, given: Sequence[Requirement]) -> Reading:
    with files.open(path) as stream:
        start = stream.read(16)
        end = _last_byte(stream)
    decompress = _decompressor(start)
    if decompress is None and not (re.match(rb"\x80[\x02-\x05]", start) or end == b"."):
        raise InvalidInput(Issue(path, "not a pickle: it neither starts nor ends as one"))
    chunks = files.chunks(path) if decompress is None else _decompressed(files.chunks(path), decompress, path)
    found = _scan(chunks, {"scikit-learn": _PICKLED})
    is_joblib = decompress is not None or found.joblib or path.lower().endswith(".joblib")
    return _reading(path, "joblib" if is_joblib else "pickle", found, given)


def _read_skops(files: PushedFiles, path: str, given: Sequence[Requirement]) -> Reading:
    with (
        files.open(path) as stream,
        archives.opened(stream, path, "a skops file, a zip archive with a schema.json") as archive,
        archive.open("schema.json") as schema,
    ):
        found = _scan(iter(lambda: schema.read(_STEP), b""), {"scikit-learn": _IN_SKOPS, "skops": _SKOPS})
    return _reading(path, "skops", found, given)


def _reading(path: str, form: str, found: _Found, given: Sequence[Requirement]) -> Reading:
    """The requirements are what the file was written with; numpy and scipy follow from scikit-learn's own metadata,
    and the lock pins them. pandas is added for estimators that were trained on named columns, cloudpickle for files
    that it wrote."""
    own, issues = [], []
    for package, versions in found.versions.items():
        if len(versions) == 1:
            own.append(Requirement(f"{package}=={versions[0]}"))
        elif not requirements.has(given, package):
            saw = (
                f"it names more than one: {', '.join(sorted(versions)[:5])}"
                if versions
                else "it does not say"
            )
            issues.append(Issue("requirements", f"which version of {package} was {path} written with? {saw}"))
    if issues:
        examples = " ".join(f"--requirement {package}==X.Y.Z" for package in found.versions)
        raise InvalidInput(issues, next_step=f"say it with {examples}")
    if found.columns:
        own.append(Requirement("pandas"))
    if found.cloudpickle:
        own.append(Requirement("cloudpickle"))
    return Reading(Flavor(name="sklearn", entry=path, options={"format": form}), own)


def _scan(chunks: Iterator[bytes], patterns: Mapping[str, re.Pattern[bytes]]) -> _Found:
    """Look through the stream, chunks overlapping; each version once."""
    versions: dict[str, dict[str, None]] = {package: {} for package in patterns}
    columns = joblib = cloudpickle = False
    tail = b""
    scanned = 0
    for chunk in chunks:
        window = tail + chunk
        columns = columns or any(marker in window for marker in _NAMED_COLUMNS)
        joblib = joblib or any(marker in window for marker in _WRITTEN_BY_JOBLIB)
        cloudpickle = cloudpickle or _WRITTEN_BY_CLOUDPICKLE in window
        for package, pattern in patterns.items():
            for match in pattern.finditer(window):
                text = _text(match, window)
                if text is not None and len(versions[package]) < 20:
                    versions[package][text] = None
        tail = window[-_OVERLAP:]
        scanned += len(chunk)
        if scanned > _MAX_SCANNED:
            break
    return _Found({package: list(texts) for package, texts in versions.items()}, columns, joblib, cloudpickle)


def _text(match: re.Match[bytes], window: bytes) -> str | None:
    """The version at a match. None if it is none, or goes past the window (the next one then shows it as a whole)."""
    if match.re is _PICKLED:
        short, long = match.groups()
        if short is None and long is None:
            end = window.find(b"\n", match.end())
        else:
            end = match.end() + int.from_bytes(short or long, "little")
        text = window[match.end() : end] if 0 <= end <= len(window) else b""
    else:
        text = match.group(1)
    return text.decode("ascii") if len(text) <= 60 and re.fullmatch(_VERSION, text) else None


def _decompressor(start: bytes) -> Callable[[], Any] | None:
    """How joblib compressed the file (joblib.compressor), by its first bytes; None if it did not."""
    if start[:2] == b"\x1f\x8b" or (
        start[:1] == b"\x78" and start[1:2] in (b"\x01", b"\x5e", b"\x9c", b"\xda")
    ):
        return lambda: zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    if start[:3] == b"BZh":
        return bz2.BZ2Decompressor
    if start[:6] == b"\xfd7zXZ\x00" or start[:3] == b"\x5d\x00\x00":
        return lambda: lzma.LZMADecompressor(memlimit=256 * 2**20)
    return None


def _decompressed(chunks: Iterator[bytes], make: Callable[[], Any], path: str) -> Iterator[bytes]:
    """The contents in pieces of bounded size, however well they were compressed."""
    decompressor = make()
    try:
        for chunk in chunks:
            given = chunk
            while not decompressor.eof:
                piece = decompressor.decompress(given, _STEP)
                # zlib hands back what it has not looked at yet, the others keep it and say when they want more.
                given = getattr(decompressor, "unconsumed_tail", b"")
                if piece:
                    yield piece
                if (
                    not given
                    and (getattr(decompressor, "needs_input", True) or not piece)
                    and len(piece) < _STEP
                ):
                    break
            if decompressor.eof:
                return
    except (zlib.error, lzma.LZMAError, OSError, ValueError, EOFError) as error:
        raise InvalidInput(Issue(path, f"its compression is broken: {str(error)[:120]}")) from None


def _last_byte(stream: BinaryIO) -> bytes:
    if stream.seek(0, 2) == 0:
        return b""
    stream.seek(-1, 2)
    return stream.read(1)
