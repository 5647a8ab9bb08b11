"""What was pushed: flavors found in real files of scikit-learn, and clear words about everything else."""

import bz2
import contextlib
import datetime
import gzip
import io
import lzma
import os
import pickle
import re
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas
import pytest
import sklearn
import skops.io
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from podium.registry.blobs import BlobStore
from podium.registry.intake import Draft, Limits, PushHints, draft
from podium.resources.errors import InvalidInput, TooLarge
from podium.resources.manifest import FileEntry
from podium.resources.requests import ImportRequest, PushRequest

Read = Callable[..., Draft]
PIN = f"scikit-learn=={sklearn.__version__}"
PODIUM_YAML = b"class: churn:Model\nrequirements: [numpy]\n"


@pytest.fixture(scope="module")
def estimators() -> Mapping[str, Any]:
    """Fitted on data that scikit-learn carries: with arrays, with named columns, and one of some megabytes."""
    features, labels = load_iris(return_X_y=True)
    framed, target = load_breast_cancer(return_X_y=True, as_frame=True)
    noisy = features + np.random.default_rng(0).normal(size=(150, 4))
    columns = make_column_transformer((StandardScaler(), ["mean radius", "mean texture"]))
    return {
        "arrays": LogisticRegression(max_iter=500).fit(features, labels),
        "columns": make_pipeline(columns, LogisticRegression()).fit(framed, target),
        "forest": RandomForestClassifier(400, random_state=0).fit(noisy, labels),
    }  # fmt: skip


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", ["arrays", "columns", "forest"])
def test_a_pickle_of_every_protocol(
    read: Read, estimators: Mapping[str, Any], name: str, protocol: int
) -> None:
    found = read({"model.pkl": pickle.dumps(estimators[name], protocol)})
    assert found.flavor.model_dump() == {
        "name": "sklearn",
        "entry": "model.pkl",
        "options": {"format": "pickle"},
    }
    assert found.requirements == (("pandas", PIN) if name == "columns" else (PIN,))
    assert (found.python, found.python_stated, found.signature) == ("3.11", False, None)


@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("bz2", 3), ("lzma", 3), ("xz", 3), ("zlib", 9)])
@pytest.mark.parametrize("name", ["arrays", "columns", "forest"])
def test_joblib_with_every_compression(
    read: Read, estimators: Mapping[str, Any], tmp_path: Path, name: str, compress: Any
) -> None:
    joblib.dump(estimators[name], tmp_path / "model.bin", compress=compress)
    found = read({"model.pkl": (tmp_path / "model.bin").read_bytes()})
    assert found.flavor.options == {"format": "joblib"}
    assert PIN in found.requirements
    assert ("pandas" in found.requirements) == (name == "columns")


@pytest.mark.parametrize("name", ["arrays", "columns", "forest"])
def test_skops_names_both_versions(
    read: Read, estimators: Mapping[str, Any], tmp_path: Path, name: str
) -> None:
    skops.io.dump(estimators[name], tmp_path / "model.skops")
    found = read({"model.skops": (tmp_path / "model.skops").read_bytes()})
    assert found.flavor.options == {"format": "skops"}
    assert {PIN, f"skops=={skops.__version__}"} <= set(found.requirements)


def test_the_version_is_found_across_the_ends_of_chunks(read: Read) -> None:
    """The bytes around the version are cut at every second place by the chunks that the scan reads."""
    model = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    mebibyte = 1024 * 1024
    at = pickle.dumps([b"", model]).index(b"_sklearn_version")
    cuts = set()
    for shift in range(-50, 20, 2):
        content = pickle.dumps([b"\0" * (mebibyte - at + shift), model])
        cuts.add(mebibyte - content.index(b"_sklearn_version"))
        assert read({"model.pkl": content}).requirements == (PIN,)
    assert min(cuts) < 0
    assert max(cuts) > len(b"_sklearn_version") + 12


def test_the_version_is_found_where_a_frame_of_the_pickle_ends(read: Read) -> None:
    """A frame may end between the key and its value: its header then stands between them."""
    cut = []
    for size in range(65_000, 65_536):
        model = LogisticRegression()
        model.padding_ = "x" * size
        content = pickle.dumps(model, 4)
        if re.search(rb"_sklearn_version\x94\x95", content):
            cut.append(content)
    assert cut
    for content in (cut[0], cut[-1]):
        assert read({"model.pkl": content}).requirements == (PIN,)


def test_an_estimator_of_another_library_asks_for_its_requirement(read: Read) -> None:
    content = pickle.dumps({"no": "estimator"})
    with pytest.raises(InvalidInput, match="which version of scikit-learn") as error:
        read({"model.pkl": content})
    assert error.value.issues[0].field == "requirements"
    assert "--requirement scikit-learn==" in str(error.value.next_step)
    found = read({"model.pkl": content}, requirements=["Scikit_Learn==1.8.0", "xgboost"])
    assert found.requirements == ("scikit-learn==1.8.0", "xgboost")


def test_two_versions_in_one_file_are_asked_about(read: Read, estimators: Mapping[str, Any]) -> None:
    good = pickle.dumps(estimators["arrays"])
    text = sklearn.__version__.encode()
    other = good.replace(text, b"0" + text[1:])
    with pytest.raises(InvalidInput, match="more than one"):
        read({"model.pkl": pickle.dumps([good, other])})


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("model.pkl", b"just text", "not a pickle"),
        ("model.pkl", b"", "not a pickle"),
        ("model.skops", b"just text", "not a skops file"),
        ("model.skops", b"PK\x05\x06" + b"\0" * 18, "not a skops file"),
        ("model.skops", b"PK\x05\x06" + b"\xff" * 18, "not a skops file"),
        ("model.joblib", gzip.compress(b"x" * 1000, mtime=0)[:-20], "which version|compression is broken"),
        ("model.joblib", b"BZh9" + b"\0" * 50, "compression is broken"),
        ("model.joblib", b"\xfd7zXZ\x00" + b"\1" * 50, "compression is broken"),
        ("model.onnx", b"just text", "not an ONNX model"),
        ("model.onnx", b"", "not an ONNX model"),
    ],
)
def test_broken_files_are_named(read: Read, name: str, content: bytes, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as error:
        read({name: content})
    assert error.value.issues[0].field in (name, "requirements")


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_a_compression_bomb_costs_little_memory(read: Read, compress: Callable[[bytes], bytes]) -> None:
    """100 MB of zeros in a few kB: looked through in pieces of a megabyte."""
    bomb = compress(bytes(100_000_000))
    with little_memory(), pytest.raises(InvalidInput, match="which version"):
        read({"model.joblib": bomb})


def test_a_zip_bomb_in_skops_costs_little_memory(read: Read) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as writer:
        writer.writestr("schema.json", bytes(100_000_000))
    with little_memory(), pytest.raises(InvalidInput, match="which version"):
        read({"model.skops": archive.getvalue()})


@contextlib.contextmanager
def little_memory() -> Iterator[None]:
    """At most 30 MB more than before, at any time."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()


def test_onnx_with_external_weights(read: Read) -> None:
    found = read({"model.onnx": b"\x08\x0a...", "model.onnx.data": b"weights"})
    assert found.flavor.model_dump() == {"name": "onnx", "entry": "model.onnx", "options": {}}
    assert found.requirements == ("onnxruntime",)
    with pytest.raises(InvalidInput, match=r"expected one \.onnx file, got 2: a.onnx, b.onnx"):
        read({"a.onnx": b"\x08\x0a", "b.onnx": b"\x08\x0a"})


def test_a_real_onnx_graph(read: Read) -> None:
    from onnx import TensorProto, helper

    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 2]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", tensors[:1], tensors[1:])
    content = helper.make_model(graph).SerializeToString()
    assert read({"churn.onnx": content}).flavor.entry == "churn.onnx"


def test_a_folder_with_a_class(read: Read) -> None:
    text = b"""
class: pkg.churn:Model
python: "3.12"
requirements: [NumPy>=1.26, scikit-learn==1.9.1]
signature:
  inputs: [{name: x, datatype: FP64, shape: [-1, 4]}]
  outputs: [{name: y, datatype: INT64, shape: [-1]}]
"""
    found = read({"podium.yaml": text, "pkg/churn.py": b"class Model: ...", "weights.bin": b"1"})
    assert found.flavor.model_dump() == {
        "name": "python",
        "entry": "",
        "options": {"class": "pkg.churn:Model", "outputs": '["y"]'},
    }
    assert found.requirements == ("numpy>=1.26", "scikit-learn==1.9.1")
    assert (found.python, found.python_stated) == ("3.12", True)
    assert found.signature is not None
    assert found.signature.inputs[0].shape == [-1, 4]
    assert read({"podium.yaml": text, "pkg/churn/__init__.py": b""}, python="3.13").python == "3.13"


@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        ("class: churn", "podium.yaml: class", "module:Class"),
        ("class: ../churn:Model", "podium.yaml: class", "module:Class"),
        ("class: 'churn:Model; import os'", "podium.yaml: class", "module:Class"),
        ("requirements: [numpy]", "podium.yaml: class", "module:Class"),
        ("class: other:Model", "podium.yaml: class", "no other.py.*churn.py"),
        ("class: churn:Model\npython: 3.10", "podium.yaml: python", "in quotes"),
        ("class: churn:Model\npython: '2.7'", "podium.yaml: python", "in quotes"),
        ("class: churn:Model\nrequirements: numpy", "podium.yaml: requirements", "list of texts"),
        ("class: churn:Model\nrequirements: [-r x]", r"podium.yaml: requirements\[0\]", "options"),
        ("class: churn:Model\nrequirement: [x]", "podium.yaml: requirement", "unknown; known: class"),
        ("class: churn:Model\nsignature: {inputs: [{name: x, datatype: FLOAT, shape: [1]}]}",
         r"podium.yaml: signature.inputs\[0\].datatype", "FP64"),
    ],
)  # fmt: skip
def test_a_bad_podium_yaml_names_its_field(read: Read, text: str, field: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as error:
        read({"podium.yaml": text.encode(), "churn.py": b""})
    assert error.value.issues[0].field == field.replace("\\", "")


def test_nothing_known_lists_what_is(read: Read) -> None:
    with pytest.raises(InvalidInput) as error:
        read({"readme.txt": b"hello", "a/b.bin": b""})
    for word in ("readme.txt", "MLflow", "podium.yaml", ".pkl", "ONNX"):
        assert word in str(error.value)
    with pytest.raises(InvalidInput, match="expected one file whose name ends with"):
        read({"readme.txt": b"hello"}, flavor="sklearn")
    with pytest.raises(InvalidInput, match="expected a file MLmodel"):
        read({"model.pkl": b"."}, flavor="mlflow")


def test_more_than_one_flavor_is_for_a_person_to_choose(read: Read) -> None:
    files = {"podium.yaml": PODIUM_YAML, "churn.py": b"", "model.onnx": b"\x08\x0a"}
    with pytest.raises(InvalidInput, match="more than one flavor: python, onnx") as error:
        read(files)
    assert error.value.issues[0].field == "flavor"
    assert read(files, flavor="python").flavor.name == "python"


def test_bytes_that_are_not_there_are_named(blobs: BlobStore, push: Callable[..., list[FileEntry]]) -> None:
    stored = push({"podium.yaml": PODIUM_YAML})[0]
    missing = FileEntry(path="churn.py", size=3, sha256="0" * 64)
    wrong = FileEntry(path="other.py", size=stored.size + 1, sha256=stored.sha256)
    with pytest.raises(InvalidInput) as error:
        draft([stored, missing, wrong], PushHints("3.11"), blobs)
    assert {issue.field for issue in error.value.issues} == {"files[1].sha256", "files[2].size"}
    with pytest.raises(InvalidInput, match="at least one file"):
        draft([], PushHints("3.11"), blobs)
    with pytest.raises(TooLarge):
        draft([stored], PushHints("3.11"), blobs, limits=Limits(max_bytes=3))


def test_blobs_that_lay_long_are_made_young_again(
    blobs: BlobStore, push: Callable[..., list[FileEntry]]
) -> None:
    files = push({"podium.yaml": PODIUM_YAML, "churn.py": b""})
    for file in files:
        os.utime(Path(blobs.url, file.sha256[:2], file.sha256[2:4], file.sha256), (1_000_000, 1_000_000))
    draft(files, PushHints("3.11"), blobs)
    now = datetime.datetime.now(datetime.UTC)
    for file in files:
        stored = blobs.find(file.sha256)
        assert stored is not None
        assert (now - stored.modified_at).total_seconds() < 60


def test_hints_of_requests() -> None:
    file = {"path": "a", "size": 1, "sha256": "0" * 64}
    push = PushRequest.model_validate(
        {"files": [file], "flavor": "onnx", "requirements": ["x"], "python": "3.12"}
    )
    assert PushHints.of(push, "3.11") == PushHints("3.11", "onnx", ["x"], "3.12")
    pulled = ImportRequest.model_validate({"uri": "models:/churn/3", "python": "3.12"})
    assert PushHints.of(pulled, "3.11") == PushHints("3.11", "mlflow", None, "3.12")


def test_a_hostile_pickle_is_stored_and_checked_out_and_never_loaded(
    blobs: BlobStore, read: Read, manifest: Callable[..., Any], tmp_path: Path
) -> None:
    """Unpickling it would make a file. It goes the registry's whole way; the file never appears."""
    from podium.registry.checkout import Checkout
    from podium.registry.verify import verify_version

    mark = tmp_path / "unpickled"

    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(mark),))

    framed = pandas.DataFrame({"a": [0.0, 1.0]})
    model = LogisticRegression().fit(framed, [0, 1])
    model.extra_ = Hostile()
    for name in ("model.pkl", "model.joblib"):
        content = pickle.dumps(model)
        found = read({name: content})
        assert PIN in found.requirements
        whole = manifest({name: content})
        folder, _ = Checkout(tmp_path / "checkouts", blobs).ensure(whole)
        assert (folder / name).read_bytes() == content
        assert verify_version(whole, blobs) == []
    assert not mark.exists()
    pickle.loads(content)
    assert mark.exists()
