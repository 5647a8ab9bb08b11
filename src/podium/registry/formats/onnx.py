"""ONNX: one .onnx file, with the weights that it keeps in files beside it.

Called by `intake`. The graph is not parsed here; its inputs and outputs come from the loaded model.
"""

from collections.abc import Sequence

from packaging.requirements import Requirement

from podium.registry.formats.port import FlavorName, PushedFiles, Reading
from podium.resources.errors import InvalidInput, Issue
from podium.resources.manifest import Flavor


class OnnxFile:
    """Implements Format."""

    name: FlavorName = "onnx"
    description = "an ONNX file (.onnx), alone or with its external weights beside it"

    def recognises(self, files: PushedFiles) -> bool:
        return bool(_graphs(files))

    def read(self, files: PushedFiles, given: Sequence[Requirement]) -> Reading:
        graphs = _graphs(files)
        if not graphs:
            raise InvalidInput(Issue("files", "expected a file whose name ends with .onnx"))
        if len(graphs) > 1:
            raise InvalidInput(
                Issue("files", f"expected one .onnx file, got {len(graphs)}: {', '.join(graphs[:5])}")
            )
        with files.open(graphs[0]) as stream:
            start = stream.read(2)
        # onnx.proto: ModelProto's first field is `int64 ir_version = 1`, so that a file starts with the tag 0x08.
        if start[:1] != b"\x08":
            raise InvalidInput(Issue(graphs[0], "not an ONNX model: it does not start with a format version"))
        return Reading(Flavor(name="onnx", entry=graphs[0]), [Requirement("onnxruntime")])


def _graphs(files: PushedFiles) -> list[str]:
    return [path for path in files.paths if path.lower().endswith(".onnx") and "/" not in path]
