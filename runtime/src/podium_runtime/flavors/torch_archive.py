"""Exported programs (.pt2) are refused where PyTorch would unpickle, or load machine code, to read them.

Called by `pytorch` before `torch.export.load`, which takes tensor subclasses, objects and sample inputs from pickles
(PyTorch 2.13: torch/export/pt2_archive/_package.py), and libraries that AOTInductor compiled. What is left are tensors
and a graph in JSON. PyTorch makes no promise about hostile graphs: the model's process stays in its sandbox.
"""

import io
import json
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from podium_runtime.errors import ModelUnusable

# Below the archive's one folder.
_PLAIN = re.compile(
    r"models/[^/]+\.json|data/weights/weight_[0-9]+|data/constants/tensor_[0-9]+|extra/.+"
    r"|archive_format|archive_version|byteorder|version|\.data/[a-z_]+"
)
_CONFIG = re.compile(r"data/(?:weights|constants)/[^/]+_config\.json")
_SAMPLES = re.compile(r"data/sample_inputs/[^/]+\.pt")


def check(path: Path) -> None:
    """Raise ModelUnusable naming the member that would be unpickled or run."""
    try:
        with zipfile.ZipFile(path) as archive:
            _check_names(archive.namelist())
            for name in archive.namelist():
                _check_member(archive, name)
    except (zipfile.BadZipFile, ValueError, KeyError, AttributeError) as error:
        raise ModelUnusable(f"pytorch: {path.name} is no exported program: {error}") from error


def _check_names(names: list[str]) -> None:
    """PyTorch finds members with a zip reader of its own: what two readers may take for each other is refused."""
    if len({name.casefold() for name in names}) != len(names):
        raise ModelUnusable("pytorch: the archive has two members of one name")


def _check_member(archive: zipfile.ZipFile, name: str) -> None:
    inner = name.partition("/")[2]
    if _PLAIN.fullmatch(inner):
        return
    if _CONFIG.fullmatch(inner):
        pickled = _pickled(json.loads(archive.read(name)).get("config", {}).items())
        if pickled:
            raise ModelUnusable(
                f"pytorch: {pickled[0]} is stored as a pickle, which is not read; "
                "export the program with plain tensors only"
            )
        return
    if _SAMPLES.fullmatch(inner):
        _check_samples(archive.read(name))
        return
    raise ModelUnusable(f"pytorch: the archive has {name[:200]}, which is neither a tensor nor a graph")


def _pickled(config: Iterable[tuple[str, Any]]) -> list[str]:
    return [
        name
        for name, entry in config
        if entry.get("use_pickle") is not False
        or not re.fullmatch(r"(?:weight|tensor)_[0-9]+", entry["path_name"])
    ]


def _check_samples(content: bytes) -> None:
    """The inputs of the export. PyTorch reads them again, and then falls back to a whole unpickler."""
    import torch

    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except Exception as error:
        raise ModelUnusable(
            "pytorch: the sample inputs are more than tensors, and not read; export the program with tensors alone"
        ) from error
