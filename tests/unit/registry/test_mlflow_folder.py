"""MLflow's folders read as text: environment, signature, paths. Real ones are in tests/integration/registry."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from podium.registry.formats.mlflow_signature import Unmapped, read_signature
from podium.registry.intake import Draft
from podium.resources.errors import InvalidInput

Read = Callable[..., Draft]
MLMODEL = """
flavors:
  python_function:
    env: {conda: conda.yaml, virtualenv: python_env.yaml}
    loader_module: mlflow.sklearn
    model_path: model.pkl
    python_version: 3.11.7
  sklearn: {pickled_model: model.pkl, serialization_format: cloudpickle, code: null}
mlflow_version: 3.17.2
"""
REQUIREMENTS = b"mlflow==3.17.2\nscikit-learn==1.9.1\n"


def folder(mlmodel: str = MLMODEL, **files: bytes) -> dict[str, bytes]:
    named = {
        name.replace("_txt", ".txt").replace("_yaml", ".yaml"): content for name, content in files.items()
    }
    return {"MLmodel": mlmodel.encode(), "model.pkl": b"any", **named}


def test_mlflow_itself_is_replaced_by_its_small_package(read: Read) -> None:
    found = read(folder(requirements_txt=REQUIREMENTS))
    assert found.flavor.model_dump() == {
        "name": "mlflow", "entry": "", "options": {"loader": "mlflow.sklearn", "serialization": "cloudpickle"},
    }  # fmt: skip
    assert found.requirements == ("mlflow-skinny==3.17.2", "numpy", "pandas", "scikit-learn==1.9.1")
    assert found.python == "3.11"
    assert "--requirement mlflow==" in found.notes[0]


def test_who_names_mlflow_gets_it(read: Read) -> None:
    found = read(folder(requirements_txt=REQUIREMENTS), requirements=["mlflow==3.16.0"])
    assert found.requirements == ("mlflow==3.16.0", "scikit-learn==1.9.1")
    assert found.notes == ()


def test_a_custom_class_keeps_the_whole_package(read: Read) -> None:
    text = MLMODEL.replace("mlflow.sklearn", "mlflow.pyfunc.model")
    assert "mlflow==3.17.2" in read(folder(text, requirements_txt=REQUIREMENTS)).requirements


def test_mlflow_is_added_where_the_model_does_not_name_it(read: Read) -> None:
    found = read(folder(requirements_txt=b"scikit-learn==1.9.1\n"))
    assert "mlflow-skinny==3.17.2" in found.requirements
    with pytest.raises(InvalidInput, match="which version of MLflow"):
        read(folder(MLMODEL.replace("mlflow_version: 3.17.2", ""), requirements_txt=b"scikit-learn\n"))


def test_conda_gives_python_and_pips_packages(read: Read) -> None:
    conda = b"dependencies: [python=3.12.4, pip<=24, {pip: [mlflow==3.1.0, scikit-learn==1.8.0]}]"
    found = read(folder(conda_yaml=conda))
    assert found.python == "3.12"
    assert found.requirements == ("mlflow-skinny==3.1.0", "numpy", "pandas", "scikit-learn==1.8.0")
    with pytest.raises(InvalidInput, match=r"not conda's 'numpy=1\.26'") as error:
        read(folder(conda_yaml=b"dependencies: [python=3.12, numpy=1.26]"))
    assert error.value.next_step == "put a requirements.txt into the folder"


def test_python_env_comes_first(read: Read) -> None:
    files = folder(
        requirements_txt=REQUIREMENTS, python_env_yaml=b"python: 3.13.1\ndependencies: [-r requirements.txt]"
    )
    assert read(files).python == "3.13"
    with pytest.raises(InvalidInput, match="as text"):
        read(folder(requirements_txt=REQUIREMENTS, python_env_yaml=b"python: 3.10"))


@pytest.mark.parametrize(
    ("old", "new", "field", "words"),
    [
        ("model_path: model.pkl", "model_path: ../model.pkl", "python_function.model_path", "relative path"),
        ("model_path: model.pkl", "model_path: /etc/passwd", "python_function.model_path", "relative path"),
        (
            "model_path: model.pkl",
            "model_path: other.pkl",
            "python_function.model_path",
            "not among the files",
        ),
        ("model_path: model.pkl", "model_path: [a]", "python_function.model_path", "expected a path"),
        ("code: null", "code: ../../code", "sklearn.code", "relative path"),
        (
            "model_path: model.pkl",
            "artifacts: {w: {path: ../w}}",
            "python_function.artifacts.w.path",
            "relative",
        ),
        (
            "loader_module: mlflow.sklearn",
            "loader_module: os;x",
            "python_function.loader_module",
            "module's name",
        ),
        ("python_function:", "other:", "python_function", "only pyfunc models"),
    ],
)
def test_paths_in_mlmodel_stay_inside(read: Read, old: str, new: str, field: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as error:
        read(folder(MLMODEL.replace(old, new), requirements_txt=REQUIREMENTS))
    assert error.value.issues[0].field == f"MLmodel: flavors.{field}"


def test_requirements_with_options_are_refused_with_their_line(read: Read) -> None:
    with pytest.raises(InvalidInput) as error:
        read(
            folder(
                requirements_txt=REQUIREMENTS + b"--extra-index-url https://evil.example\n./wheels/x.whl\n"
            )
        )
    assert [issue.field for issue in error.value.issues] == ["requirements.txt:3", "requirements.txt:4"]


def columns(*entries: dict[str, Any]) -> str:
    return json.dumps(entries)


def tensor(dtype: str, shape: list[int], **more: Any) -> dict[str, Any]:
    return {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": shape}, **more}


def test_named_columns_are_one_tensor_each() -> None:
    found = read_signature(
        {
            "inputs": columns({"type": "double", "name": "age", "required": True},
                              {"type": "string", "name": "city", "required": False},
                              {"type": "long", "name": "old", "optional": True}),
            "outputs": columns(tensor("int64", [-1])),
            "params": None,
        }
    )  # fmt: skip
    assert found is not None
    assert [(t.name, t.datatype, t.shape, t.optional) for t in found.inputs] == [
        ("age", "FP64", [-1], False),
        ("city", "BYTES", [-1], True),
        ("old", "INT64", [-1], True),
    ]
    assert [(t.name, t.datatype, t.shape) for t in found.outputs] == [("predict", "INT64", [-1])]


def test_unnamed_columns_of_one_type_are_one_tensor() -> None:
    found = read_signature(
        {"inputs": columns(*[{"type": "float"}] * 3), "outputs": columns({"type": "long"})}
    )
    assert found is not None
    assert [(t.name, t.datatype, t.shape) for t in found.inputs] == [("input", "FP32", [-1, 3])]
    assert [(t.name, t.shape) for t in found.outputs] == [("predict", [-1])]


@pytest.mark.parametrize(
    ("dtype", "datatype"),
    [("float16", "FP16"), ("uint8", "UINT8"), ("bool", "BOOL"), ("object", "BYTES"), ("<U5", "BYTES"),
     ("datetime64[ns]", "BYTES")],
)  # fmt: skip
def test_tensors(dtype: str, datatype: str) -> None:
    found = read_signature({"inputs": columns(tensor(dtype, [-1, 28, 28], name="x"))})
    assert found is not None
    assert found.inputs[0].model_dump() == {
        "name": "x",
        "datatype": datatype,
        "shape": [-1, 28, 28],
        "optional": False,
    }


@pytest.mark.parametrize(
    "inputs",
    [
        columns({"type": "object", "name": "x", "properties": {}}),
        columns({"type": "array", "name": "x", "items": {"type": "double"}}),
        columns({"type": "double"}, {"type": "long"}),
        columns({"type": "double", "name": "x"}, {"type": "long", "name": "x"}),
        columns(tensor("complex128", [-1])),
        columns(tensor("float64", [-1]), {"type": "double"}),
        columns(tensor("float64", ["a"], name="x")),
        columns(tensor("float64", [-1], name="")),
        columns(*[{"type": "double", "name": f"c{n}"} for n in range(10_001)]),
        "[" * 100_000,
        "no json",
        columns("text"),  # type: ignore[arg-type]
    ],
    ids=range(12),
)
def test_what_no_tensor_carries_is_said(read: Read, inputs: str) -> None:
    with pytest.raises(Unmapped):
        read_signature({"inputs": inputs})
    text = MLMODEL + "signature:\n  inputs: " + json.dumps(inputs) + "\n"
    found = read(folder(text, requirements_txt=REQUIREMENTS))
    assert found.signature is None
    assert "the loaded model is asked instead" in found.notes[-1]


def test_outputs_that_no_tensor_carries_leave_the_inputs() -> None:
    found = read_signature(
        {"inputs": columns({"type": "double", "name": "x"}), "outputs": columns({"type": "any"})}
    )
    assert found is not None
    assert found.outputs == []
