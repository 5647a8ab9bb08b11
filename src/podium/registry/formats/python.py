"""A folder with a podium.yaml that names a Python class.

Called by `intake`. The module is not imported here.
"""

from collections.abc import Sequence

from packaging.requirements import Requirement

from podium.registry.formats import podium_yaml
from podium.registry.formats.port import FlavorName, PushedFiles, Reading
from podium.resources.errors import InvalidInput, Issue
from podium.resources.manifest import Flavor


class PythonFolder:
    """Implements Format."""

    name: FlavorName = "python"
    description = f"a folder with a {podium_yaml.FILE} that names a Python class (class: module:Class)"

    def recognises(self, files: PushedFiles) -> bool:
        return podium_yaml.FILE in files.entries and not podium_yaml.names_weights(files)

    def read(self, files: PushedFiles, given: Sequence[Requirement]) -> Reading:
        found = podium_yaml.read(files)
        if found.weights is not None:
            raise InvalidInput(
                Issue(f"{podium_yaml.FILE}: weights", "only a class of the flavor pytorch has weights"),
                next_step="push it with --flavor pytorch, or let the class load its weights itself",
            )
        return Reading(
            Flavor(name="python", options=dict(found.options)),
            found.requirements,
            found.python,
            found.signature,
        )
