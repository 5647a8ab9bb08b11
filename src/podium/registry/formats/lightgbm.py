"""A LightGBM model in the text file that `Booster.save_model` writes.

Called by `intake`. The file names the version of its format (v4 since LightGBM 4.0), not of the package.
"""

from collections.abc import Sequence

from packaging.requirements import Requirement

from podium.registry.formats import known_versions
from podium.registry.formats.port import FlavorName, PushedFiles, Reading
from podium.resources.errors import InvalidInput, Issue
from podium.resources.manifest import Flavor

_SUFFIX = ".txt"
_FORMATS = (b"v3", b"v4")


class LightgbmFile:
    """Implements Format."""

    name: FlavorName = "lightgbm"
    description = "a LightGBM file of Booster.save_model (.txt)"

    def recognises(self, files: PushedFiles) -> bool:
        return len(files.paths) == 1 and files.paths[0].lower().endswith(_SUFFIX)

    def read(self, files: PushedFiles, given: Sequence[Requirement]) -> Reading:
        if not self.recognises(files):
            raise InvalidInput(Issue("files", f"expected one file whose name ends with {_SUFFIX}"))
        path = files.paths[0]
        with files.open(path) as stream:
            lines = stream.read(200).splitlines()
        if lines[:1] != [b"tree"] or not any(line.startswith(b"version=") for line in lines[:3]):
            raise InvalidInput(
                Issue(path, "not a LightGBM model: it does not start with the lines `tree` and `version=`")
            )
        form = next(line for line in lines if line.startswith(b"version=")).removeprefix(b"version=")
        if form not in _FORMATS:
            known = b", ".join(_FORMATS).decode()
            raise InvalidInput(
                Issue(path, f"its format is {form.decode(errors='replace')[:20]!r}; known are {known}"),
                next_step="load it with the LightGBM that wrote it, and save it with LightGBM 4",
            )
        own, note = known_versions.told_or_known("lightgbm", None, known_versions.LIGHTGBM)
        return Reading(Flavor(name="lightgbm", entry=path), [own], notes=(note,) if note else ())
