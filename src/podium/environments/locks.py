"""Requirements of a model, resolved into a lock with hashes. Called by `uv`; calls the installer.

The lock holds the model's requirements and podium-runtime's own, so that the two never fight in one environment.
"""

import hashlib
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from podium.environments.installer import Installer, Say, UvFailed
from podium.resources.errors import IntegrityError, InvalidInput, Issue, Unavailable

_MAX_REQUIREMENTS = 2000
# What `resolve` writes: `name==version \`, perhaps with a marker, then `    --hash=sha256:<hex> \` for each file.
_PIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.!+_-]+( ; [^\\@]+)?( \\)?")
_HASH = re.compile(r" {4}--hash=sha256:[0-9a-f]{64}( \\)?")


@dataclass(frozen=True)
class Lock:
    """`text` in the form of a requirements file; `sha256` is over its UTF-8 bytes."""

    text: str
    sha256: str


def check_requirements(requirements: Sequence[str]) -> None:
    """Names and version specifiers only: no options, files, paths or addresses.

    Raises InvalidInput naming each line that is anything else.
    """
    if len(requirements) > _MAX_REQUIREMENTS:
        raise InvalidInput(Issue("requirements", f"expected at most {_MAX_REQUIREMENTS} lines"))
    issues = []
    for index, text in enumerate(requirements):
        field = f"requirements[{index}]"
        try:
            parsed = Requirement(text)
        except InvalidRequirement as error:
            first = str(error).splitlines()[0]
            issues.append(Issue(field, f"{text[:80]!r} is no requirement (PEP 508): {first}"))
            continue
        if parsed.url is not None or not text.isprintable():
            issues.append(
                Issue(field, f"{text[:80]!r}: expected a name and versions, not an address or path")
            )
    if issues:
        raise InvalidInput(issues)


def check_lock(text: str) -> None:
    """Pins with hashes only. Raises IntegrityError for a lock that was not made here: it might name other sources."""
    for number, line in enumerate(text.splitlines(), 1):
        if line and not line.startswith("#") and not _PIN.fullmatch(line) and not _HASH.fullmatch(line):
            raise IntegrityError(f"the lock's line {number} is no pin with hashes: {line[:80]!r}")


def wheel_requirements(wheel: Path) -> list[str]:
    """What a wheel itself requires. Raises Unavailable when it cannot be read."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            name = next(item for item in archive.namelist() if item.endswith(".dist-info/METADATA"))
            metadata = Parser().parsestr(archive.read(name).decode())
    except (OSError, zipfile.BadZipFile, StopIteration, KeyError) as error:
        raise Unavailable(f"the runtime's wheel {wheel.name} cannot be read: {error}") from None
    return [text for text in metadata.get_all("Requires-Dist", []) if "extra ==" not in text]


def resolve(
    requirements: Sequence[str],
    python: str,
    wheel: Path,
    *,
    installer: Installer,
    say: Say | None,
    fresh: bool = False,
) -> Lock:
    """A lock for this machine's platform, of wheels only: nothing is built, as building runs a stranger's code.

    Raises InvalidInput with the resolver's own words.
    """
    check_requirements(requirements)
    interpreter = installer.find_python(python)
    wanted = "\n".join([*requirements, *wheel_requirements(wheel)]) + "\n"
    try:
        text = installer.call(
            ["pip", "compile", "--generate-hashes", "--only-binary", ":all:", "--no-emit-index-url", "--no-annotate",
             "--no-header", "--no-sources", "--python", str(interpreter), *(["--refresh"] if fresh else []), "-"],
            say=say, text=wanted,
        )  # fmt: skip
    except UvFailed as failed:
        raise InvalidInput(
            Issue("requirements", f"cannot be resolved for Python {python}: {failed.words}"),
            next_step="mend the requirement that the resolver names and push again",
        ) from None
    pins = [line for line in text.splitlines() if not line.startswith("--")]
    text = "\n".join(pins) + "\n"
    check_lock(text)
    return Lock(text, hashlib.sha256(text.encode()).hexdigest())
