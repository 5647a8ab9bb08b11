"""PyTorch: an exported program (.pt2), TorchScript (.pt, .pth), or a class in a folder with its weights in safetensors.

Called by `intake`. All but TorchScript tell nothing that must be unpickled, and neither does TorchScript here: the
archives are looked at from outside.
"""

import re
import zipfile
from collections.abc import Sequence

from packaging.requirements import Requirement

from podium.registry import requirements
from podium.registry.formats import archives, known_versions, podium_yaml
from podium.registry.formats.port import FlavorName, PushedFiles, Reading
from podium.resources.errors import InvalidInput, Issue
from podium.resources.manifest import Flavor

_SUFFIXES = (".pt2", ".pt", ".pth")
# A member of an exported program; torch.export writes its own version at the end of it.
_PROGRAM = re.compile(r"[^/]+/models/[^/]+\.json|serialized_exported_program\.json")
_VERSION = re.compile(rb'"torch_version":\s*"([0-9A-Za-z.+]{1,40})"')
_MAX_PROGRAM = 512 * 2**20
_NEXT = (
    "push torch.export.save(torch.export.export(model, ...), 'model.pt2'), or the class and its weights: "
    f"a folder with the module, model.safetensors and a {podium_yaml.FILE} (class, weights)"
)


class TorchModel:
    """Implements Format."""

    name: FlavorName = "pytorch"
    description = (
        "a PyTorch file: an exported program (.pt2) or TorchScript (.pt, .pth); "
        f"or a folder with a {podium_yaml.FILE} that names a class and its weights (weights: model.safetensors)"
    )

    def recognises(self, files: PushedFiles) -> bool:
        return podium_yaml.names_weights(files) or (
            len(files.paths) == 1 and files.paths[0].lower().endswith(_SUFFIXES)
        )

    def read(self, files: PushedFiles, given: Sequence[Requirement]) -> Reading:
        if podium_yaml.FILE in files.entries:
            return _read_folder(files, given)
        if not self.recognises(files):
            raise InvalidInput(
                Issue("files", f"expected one file whose name ends with {', '.join(_SUFFIXES)}"),
                next_step=_NEXT,
            )
        path = files.paths[0]
        with (
            files.open(path) as stream,
            archives.opened(
                stream, path, "a file of torch.export.save or torch.jit.save, a zip archive"
            ) as archive,
        ):
            form, version = _look(archive, path)
        own, note = known_versions.told_or_known("torch", version, known_versions.TORCH)
        return Reading(
            Flavor(name="pytorch", entry=path, options={"format": form}), [own], notes=(note,) if note else ()
        )


def _look(archive: zipfile.ZipFile, path: str) -> tuple[str, str | None]:
    """The format's name, and the version of torch where the archive tells it."""
    names = archive.namelist()
    program = next((name for name in names if _PROGRAM.fullmatch(name)), None)
    if program is not None:
        found = _VERSION.findall(archives.read_start(archive, program, _MAX_PROGRAM))
        return "exported", found[-1].decode() if found else None
    folders = {tuple(name.split("/")[1:2]) for name in names}
    if ("code",) in folders and ("constants.pkl",) in folders:
        return "torchscript", None
    if ("data.pkl",) in folders:
        raise InvalidInput(
            Issue(
                path,
                "a pickle of torch.save: weights without their class, or objects that run code when loaded",
            ),
            next_step=_NEXT,
        )
    raise InvalidInput(
        Issue(path, "neither an exported program nor TorchScript: a zip archive of something else"),
        next_step=_NEXT,
    )


def _read_folder(files: PushedFiles, given: Sequence[Requirement]) -> Reading:
    found = podium_yaml.read(files)
    if found.weights is None:
        raise InvalidInput(
            Issue(
                f"{podium_yaml.FILE}: weights", "missing: the .safetensors file with the weights of the class"
            )
        )
    own, notes = list(found.requirements), []
    for package, known in (("torch", known_versions.TORCH), ("safetensors", known_versions.SAFETENSORS)):
        if not requirements.has([*own, *given], package):
            requirement, note = known_versions.told_or_known(package, None, known)
            own.append(requirement)
            notes += [note] if note else []
    options = {"format": "safetensors", **found.options}
    flavor = Flavor(name="pytorch", entry=found.weights, options=options)
    return Reading(flavor, own, found.python, found.signature, tuple(notes))
