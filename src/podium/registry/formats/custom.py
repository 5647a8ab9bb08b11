"""A folder of files for another server: nothing that Podium's own model server could load.

    flavor: custom                    # in a podium.yaml beside the files
    python: "3.11"                    # optional
    requirements: [mlserver==1.7.1]   # the server itself, where it is a package
    signature: {inputs: [...], outputs: [...]}

Which command serves them stands in the Deployment (`spec.runtime.command`). Called by `intake`.
"""

from collections.abc import Collection, Sequence

from packaging.requirements import Requirement

from podium.registry.formats.podium_yaml import FILE, python_of, requirements_of, signature_of
from podium.registry.formats.port import FlavorName, PushedFiles, Reading
from podium.registry.yaml_text import parse_yaml
from podium.resources.errors import InvalidInput, Issue
from podium.resources.manifest import Flavor

_MAX_BYTES = 1024 * 1024
_KEYS = ("flavor", "python", "requirements", "signature")


def declared_flavor(files: PushedFiles, known: Collection[FlavorName]) -> FlavorName | None:
    """What the folder's podium.yaml says that it is; None: it does not say. Raises InvalidInput for an unknown one."""
    if FILE not in files.entries:
        return None
    said = parse_yaml(files.read(FILE, _MAX_BYTES), FILE).get("flavor")
    if said is None:
        return None
    for name in known:
        if said == name:
            return name
    raise InvalidInput(Issue(f"{FILE}: flavor", f"{str(said)[:60]!r} is unknown; known: {', '.join(known)}"))


class CustomFolder:
    """Implements Format."""

    name: FlavorName = "custom"
    description = f"a folder of files for another server, with a {FILE} that says flavor: custom"

    def recognises(self, files: PushedFiles) -> bool:
        """Only where it is said: any files could be another server's."""
        return False

    def read(self, files: PushedFiles, given: Sequence[Requirement]) -> Reading:
        """Without a podium.yaml (the pusher said --flavor custom) there are only the pusher's requirements."""
        document = parse_yaml(files.read(FILE, _MAX_BYTES), FILE) if FILE in files.entries else {}
        issues = [
            Issue(f"{FILE}: {key[:60]}", f"unknown with flavor custom; known: {', '.join(_KEYS)}")
            for key in document
            if key not in _KEYS
        ]
        if issues:
            raise InvalidInput(issues)
        return Reading(
            Flavor(name="custom"),
            requirements_of(document.get("requirements")),
            python_of(document.get("python")),
            signature_of(document.get("signature")),
            ("the files are kept as they are; spec.runtime.command of a Deployment says what serves them",),
        )
