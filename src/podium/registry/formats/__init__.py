"""One file per flavor: how a pushed model of that flavor looks, and what its files tell."""

from podium.registry.formats.custom import CustomFolder
from podium.registry.formats.lightgbm import LightgbmFile
from podium.registry.formats.mlflow import MlflowFolder
from podium.registry.formats.onnx import OnnxFile
from podium.registry.formats.port import FlavorName, Format, PushedFiles, Reading
from podium.registry.formats.python import PythonFolder
from podium.registry.formats.pytorch import TorchModel
from podium.registry.formats.sentence_transformers import SentenceTransformersFolder
from podium.registry.formats.sklearn import SklearnFile
from podium.registry.formats.transformers import TransformersFolder
from podium.registry.formats.xgboost import XgboostFile

FORMATS: tuple[Format, ...] = (
    MlflowFolder(),
    PythonFolder(),
    SklearnFile(),
    XgboostFile(),
    LightgbmFile(),
    OnnxFile(),
    TorchModel(),
    TransformersFolder(),
    SentenceTransformersFolder(),
    CustomFolder(),
)

__all__ = ["FORMATS", "FlavorName", "Format", "PushedFiles", "Reading"]
