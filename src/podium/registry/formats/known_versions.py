"""Versions of frameworks for models whose files do not tell which one wrote them.

Called by the formats. They are the versions that `make test-flavors` runs with, and its tests compare them with these;
`--requirement` takes their place.
"""

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

LIGHTGBM = "4.7.0"
SAFETENSORS = "0.8.0"
SENTENCE_TRANSFORMERS = "6.2.0"
TORCH = "2.13.0"
TRANSFORMERS = "5.23.0"

# The oldest that the runtime's flavors work with: they call `from_pretrained(dtype=...)`, and newer versions read what
# older ones wrote.
OLDEST_SENTENCE_TRANSFORMERS = "5.0.0"
OLDEST_TRANSFORMERS = "4.56.0"


def told_or_known(
    package: str, told: object, known: str, oldest: str | None = None
) -> tuple[Requirement, str | None]:
    """Return the requirement for a version that a file tells, and a note where another one is taken.

    Taken instead is `known`: where nothing is told, where it is no release (such as 5.1.0.dev0), or is below `oldest`.
    """
    version = _release(told)
    if version is not None and (oldest is None or version >= Version(oldest)):
        return Requirement(f"{package}=={version}"), None
    why = f"the files name {str(told)[:40]}" if told else "the files do not say which version wrote them"
    if version is not None:
        why += f", and at least {oldest} is needed"
    note = f"{package}=={known} is taken: {why}. Choose another with --requirement {package}==X.Y.Z"
    return Requirement(f"{package}=={known}"), note


def _release(told: object) -> Version | None:
    if not isinstance(told, str) or len(told) > 60:
        return None
    try:
        # A local part (2.13.0+cpu) names a build, which an index need not have.
        version = Version(Version(told).public)
    except InvalidVersion:
        return None
    return None if version.is_prerelease else version
