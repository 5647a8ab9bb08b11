"""One file per flavor: how a pushed model of that flavor looks, and what its files tell."""

from podium.registry.formats.mlflow import MlflowFolder
from podium.registry.formats.onnx import OnnxFile
from podium.registry.formats.port import FlavorName, Format, PushedFiles, Reading
from podium.registry.formats.python import PythonFolder
from podium.registry.formats.sklearn import SklearnFile

FORMATS: tuple[Format, ...] = (MlflowFolder(), PythonFolder(), SklearnFile(), OnnxFile())

__all__ = ["FORMATS", "FlavorName", "Format", "PushedFiles", "Reading"]
