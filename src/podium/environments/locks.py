"""Requirements of a model, resolved into a lock with hashes. Called by `uv`; calls the installer.

The lock holds the model's requirements and podium-runtime's own, so that the two never fight in one environment.
"""

import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from podium.environments.installer import Say, UvFailed, call, find_python
from podium.resources.errors import InvalidInput, Issue, Unavailable


@dataclass(frozen=True)
class Lock:
    """`text` in the form of a requirements file; `sha256` is over its UTF-8 bytes."""

    text: str
    sha256: str


def check_requirements(requirements: Sequence[str]) -> None:
    """Names and version specifiers only. Raises InvalidInput naming each line that is anything else."""
    issues = []
    for index, text in enumerate(requirements):
        try:
            parsed = Requirement(text)
        except InvalidRequirement as error:
            first = str(error).splitlines()[0]
            issues.append(
                Issue(f"requirements[{index}]", f"{text[:80]!r} is no requirement (PEP 508): {first}")
            )
            continue
        if parsed.url is not None or "\n" in text:
            issues.append(
                Issue(
                    f"requirements[{index}]",
                    f"{text[:80]!r}: expected a name and versions, not an address or path",
                )
            )
    if issues:
        raise InvalidInput(issues)


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
    requirements: Sequence[str], python: str, wheel: Path, *, cache: Path | None, say: Say | None
) -> Lock:
    """A lock for this machine's platform. Raises InvalidInput with the resolver's own words."""
    check_requirements(requirements)
    interpreter = find_python(python, cache=cache)
    wanted = "\n".join([*requirements, *wheel_requirements(wheel)]) + "\n"
    try:
        text = call(
            ["pip", "compile", "--generate-hashes", "--no-emit-index-url", "--no-annotate", "--no-header",
             "--no-sources", "--python", str(interpreter), "-"],
            cache=cache, say=say, text=wanted,
        )  # fmt: skip
    except UvFailed as failed:
        raise InvalidInput(
            Issue("requirements", f"cannot be resolved for Python {python}: {failed.words}"),
            next_step="mend the requirement that the resolver names and push again",
        ) from None
    lines = [
        line
        for line in text.splitlines()
        if not line.startswith(("--index", "--extra-index", "--find-links"))
    ]
    text = "\n".join(lines) + "\n"
    return Lock(text, hashlib.sha256(text.encode()).hexdigest())
