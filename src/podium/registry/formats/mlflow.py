"""An MLflow model folder: MLmodel, and the files that describe its environment.

Called by `intake`. Read as text; MLflow itself is not imported.
"""

import re
from collections.abc import Sequence
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from podium.registry import requirements
from podium.registry.formats.mlflow_signature import Unmapped, read_signature
from podium.registry.formats.port import FlavorName, PushedFiles, Reading
from podium.registry.yaml_text import parse_yaml
from podium.resources.errors import InvalidInput, Issue
from podium.resources.manifest import Flavor, Signature, check_path

FILE = "MLmodel"
_MAX_MLMODEL = 8 * 2**20
_MAX_ENVIRONMENT = 1024 * 1024
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_VERSION = re.compile(r"[0-9]+(\.[0-9A-Za-z]+){1,5}")
# Entries of a flavor in MLmodel that name a file or folder of the model.
_PATH_KEYS = ("model_path", "pickled_model", "python_model", "data", "code", "model_code_path")
_CUSTOM_LOADER = "mlflow.pyfunc.model"


class MlflowFolder:
    """Implements Format."""

    name: FlavorName = "mlflow"
    description = "an MLflow model folder (with a file MLmodel)"

    def recognises(self, files: PushedFiles) -> bool:
        return FILE in files.entries

    def read(self, files: PushedFiles, given: Sequence[Requirement]) -> Reading:
        if FILE not in files.entries:
            raise InvalidInput(Issue("files", f"expected a file {FILE}"))
        document = parse_yaml(files.read(FILE, _MAX_MLMODEL), FILE)
        flavors = document.get("flavors")
        pyfunc = flavors.get("python_function") if isinstance(flavors, dict) else None
        if not isinstance(flavors, dict) or not isinstance(pyfunc, dict):
            known = ", ".join(sorted(map(str, flavors))[:10]) if isinstance(flavors, dict) else "none"
            raise InvalidInput(
                Issue(
                    f"{FILE}: flavors.python_function",
                    f"missing; only pyfunc models can be served. There: {known}",
                ),
                next_step="log the model with a flavor that has a python_function",
            )
        loader = pyfunc.get("loader_module")
        if not isinstance(loader, str) or not _MODULE.fullmatch(loader):
            raise InvalidInput(
                Issue(f"{FILE}: flavors.python_function.loader_module", "expected a module's name")
            )
        for name, flavor in flavors.items():
            if isinstance(flavor, dict):
                _check_paths(flavor, f"flavors.{str(name)[:60]}", files)
        python, found = _environment(files, pyfunc)
        found, notes = _with_mlflow(found, given, document.get("mlflow_version"), loader)
        signature, words = _signature(document)
        return Reading(
            Flavor(name="mlflow", options=_options(loader, flavors)),
            found,
            python or _short(pyfunc.get("python_version"), f"{FILE}: flavors.python_function.python_version"),
            signature,
            (*notes, *words),
        )


def _options(loader: str, flavors: dict[str, Any]) -> dict[str, str]:
    """What the runtime and a reader may want to know without opening MLmodel."""
    options = {"loader": loader}
    sklearn = flavors.get("sklearn")
    form = sklearn.get("serialization_format") if isinstance(sklearn, dict) else None
    if isinstance(form, str) and re.fullmatch(r"[a-z_]{1,40}", form):
        options["serialization"] = form
    return options


def _check_paths(flavor: dict[str, Any], field: str, files: PushedFiles) -> None:
    """Every path that MLmodel names must stay inside the folder and be there."""
    named = [(key, flavor[key]) for key in _PATH_KEYS if flavor.get(key) is not None]
    artifacts = flavor.get("artifacts")
    if isinstance(artifacts, dict):
        for key, artifact in artifacts.items():
            if isinstance(artifact, dict):
                named.append((f"artifacts.{str(key)[:60]}.path", artifact.get("path")))
    for key, value in named:
        where = f"{FILE}: {field}.{key}"
        if not isinstance(value, str):
            raise InvalidInput(Issue(where, "expected a path in the folder"))
        path = value.rstrip("/")
        try:
            if path not in ("", "."):
                check_path(path)
        except ValueError as error:
            raise InvalidInput(Issue(where, str(error))) from None
        if path not in ("", ".") and not files.holds(path):
            raise InvalidInput(Issue(where, f"{path[:200]!r} is not among the files"))


def _environment(files: PushedFiles, pyfunc: dict[str, Any]) -> tuple[str | None, list[Requirement]]:
    """Python's version and the requirements. requirements.txt comes first, then what conda.yaml gives to pip."""
    named = pyfunc.get("env")
    conda_name, venv_name = "conda.yaml", "python_env.yaml"
    if isinstance(named, str):
        conda_name = named
    elif isinstance(named, dict):
        conda_name = str(named.get("conda") or conda_name)
        venv_name = str(named.get("virtualenv") or venv_name)
    python: str | None = None
    if venv_name in files.entries:
        venv = parse_yaml(files.read(venv_name, _MAX_ENVIRONMENT), venv_name)
        python = _short(venv.get("python"), f"{venv_name}: python")
    conda = (
        parse_yaml(files.read(conda_name, _MAX_ENVIRONMENT), conda_name)
        if conda_name in files.entries
        else {}
    )
    conda_python, others, pip = _conda(conda, conda_name)
    if "requirements.txt" in files.entries:
        found = requirements.parse_file(files.text("requirements.txt", _MAX_ENVIRONMENT), "requirements.txt")
    elif others:
        raise InvalidInput(
            Issue(
                f"{conda_name}: dependencies",
                f"only pip's packages can be installed, not conda's {others[0][:80]!r}",
            ),
            next_step="put a requirements.txt into the folder",
        )
    else:
        found = requirements.parse_all(pip, f"{conda_name}: dependencies.pip")
    return python or conda_python, found


def _conda(document: dict[str, Any], name: str) -> tuple[str | None, list[str], list[str]]:
    """Python's version, conda's own packages, and pip's requirements."""
    dependencies = document.get("dependencies") or []
    if not isinstance(dependencies, list):
        raise InvalidInput(Issue(f"{name}: dependencies", "expected a list"))
    python: str | None = None
    others: list[str] = []
    pip: list[str] = []
    for entry in dependencies:
        if isinstance(entry, dict):
            texts = entry.get("pip") or []
            if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
                raise InvalidInput(Issue(f"{name}: dependencies.pip", "expected a list of texts"))
            pip += texts
            continue
        match = re.fullmatch(r"python\s*=+\s*(3\.[0-9]{1,2})(\.[0-9.*]+)?", str(entry))
        if match:
            python = match.group(1)
        elif not re.match(r"(pip|python)\b", str(entry)):
            others.append(str(entry))
    return python, others, pip


def _with_mlflow(
    found: list[Requirement], given: Sequence[Requirement], version: Any, loader: str
) -> tuple[list[Requirement], list[str]]:
    """MLflow writes `mlflow==X` into every model's requirements, which brings its tracking server and 850 MB.

    mlflow-skinny of the same version has the same code; with numpy and pandas it loads every pyfunc model whose loader
    is MLflow's own. A custom class (mlflow.pyfunc.model) may import whatever the full package brings, and keeps it. So
    does a model whose pusher names mlflow.
    """
    notes: list[str] = []
    if requirements.has(given, "mlflow", "mlflow-skinny"):
        found = [each for each in found if canonicalize_name(each.name) not in ("mlflow", "mlflow-skinny")]
    elif not requirements.has(found, "mlflow", "mlflow-skinny"):
        if not isinstance(version, str) or not _VERSION.fullmatch(version):
            words = f"which version of MLflow wrote the model? {FILE} does not say"
            raise InvalidInput(
                Issue("requirements", words), next_step="say it with --requirement mlflow==X.Y.Z"
            )
        found = [*found, Requirement(f"mlflow-skinny=={version}")]
        notes.append(f"mlflow-skinny=={version} is added: a pyfunc model is loaded by MLflow")
    elif loader.startswith("mlflow.") and loader != _CUSTOM_LOADER:
        for each in found:
            if canonicalize_name(each.name) == "mlflow" and not each.extras:
                each.name = "mlflow-skinny"
                notes.append(
                    f"{each} stands for mlflow, without its server: {loader} needs no more. "
                    "Keep the whole package with --requirement mlflow==X.Y.Z"
                )
    if requirements.has([*found, *given], "mlflow-skinny"):
        found = [
            *found,
            *(Requirement(name) for name in ("numpy", "pandas") if not requirements.has(found, name)),
        ]
    return found, notes


def _signature(document: dict[str, Any]) -> tuple[Signature | None, list[str]]:
    try:
        return read_signature(document.get("signature")), []
    except Unmapped as error:
        return None, [f"the signature in {FILE} cannot be used: {error}; the loaded model is asked instead"]


def _short(value: Any, field: str) -> str | None:
    """3.11.7 -> 3.11"""
    if value is None:
        return None
    match = re.fullmatch(r"(3\.[0-9]{1,2})(\.[0-9]{1,3}\w{0,10})?", value) if isinstance(value, str) else None
    if match is None:
        raise InvalidInput(Issue(field, 'expected a version of Python 3 as text, such as "3.11.7"'))
    return match.group(1)
