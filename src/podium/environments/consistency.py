"""Does everything that is installed in an environment find what it requires?

Called by `building`. Reads the packages' metadata as files: asking the environment's own interpreter would run it on
packages that are not ours.
"""

from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name


def conflicts(site_packages: Path, python_full_version: str) -> list[str]:
    """One sentence per requirement that is not met, for an interpreter `3.11.7` of this machine; empty: all is well."""
    found = list(distributions(path=[str(site_packages)]))
    versions = {canonicalize_name(one.metadata["Name"]): one.version for one in found}
    environment = _environment(python_full_version)
    sentences = []
    for one in found:
        for text in one.requires or []:
            try:
                wanted = Requirement(text)
            except InvalidRequirement:
                continue  # an old package's metadata; the resolver has judged it
            if wanted.marker is not None and not wanted.marker.evaluate(environment):
                continue
            have = versions.get(canonicalize_name(wanted.name))
            if have is None:
                sentences.append(
                    f"{one.metadata['Name']} {one.version} requires {text}, which is not installed"
                )
            elif not wanted.specifier.contains(have, prereleases=True):
                sentences.append(
                    f"{one.metadata['Name']} {one.version} requires {text}, but {have} is installed"
                )
    return sorted(sentences)


def _environment(python_full_version: str) -> Mapping[str, str]:
    changed = {
        "python_full_version": python_full_version,
        "python_version": ".".join(python_full_version.split(".")[:2]),
        "implementation_version": python_full_version,
        "extra": "",
    }
    return {**{name: str(value) for name, value in default_environment().items()}, **changed}
