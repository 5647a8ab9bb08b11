"""Manifest and push digest: the same push is the same digest, whatever the order; anything else is another."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from podium.registry.blobs import BlobStore
from podium.registry.intake import PushHints, draft
from podium.registry.push import complete, push_digest
from podium.resources.manifest import FileEntry, Manifest, Signature, canonical_json
from podium.resources.requests import LINEAGE_BYTES, ImportRequest, PushRequest

Push = Callable[[Mapping[str, bytes]], list[FileEntry]]
FILES = {"podium.yaml": b"class: churn:Model\nrequirements: [numpy]\n", "churn.py": b"class Model: ..."}
LOCK = "1" * 64


@pytest.fixture
def digest(blobs: BlobStore, push: Push) -> Callable[..., str]:
    def make(files: Mapping[str, bytes] = FILES, default_python: str = "3.11", **parts: Any) -> str:
        request = PushRequest.model_validate({"files": [f.model_dump() for f in push(files)], **parts})
        return push_digest(request, draft(request.files, PushHints.of(request, default_python), blobs))

    return make


def test_the_same_push_again_is_the_same_version(digest: Callable[..., str]) -> None:
    first = digest(
        metrics={"auc": 0.93, "f1": 0.5}, datasets=[dataset("a"), dataset("b")], lineage={"x": 1, "y": [1]}
    )
    again = digest(
        dict(reversed(FILES.items())), "3.13", metrics={"f1": 0.5, "auc": 0.93}, lineage={"y": [1], "x": 1},
        datasets=[dataset("b"), dataset("a")], note="another note", alias="champion",
        git={"commit": "a" * 40, "dirty": True}, requirements=["NumPy"],
    )  # fmt: skip
    assert first == again
    assert first.startswith("sha256:")


@pytest.mark.parametrize(
    "parts",
    [
        {"files": {**FILES, "churn.py": b"class Model:  ..."}},
        {"files": {**FILES, "more.txt": b""}},
        {"requirements": ["numpy==2.0"]},
        {"requirements": ["pandas"]},
        {"python": "3.11"},
        {"signature": {"inputs": [{"name": "x", "datatype": "FP64", "shape": [-1]}]}},
        {"metrics": {"auc": 0.94}},
        {"datasets": [{"name": "a", "sha256": "0" * 64, "size": 1}]},
        {"lineage": {"x": 2}},
    ],
    ids=lambda parts: next(iter(parts)),
)
def test_another_push_is_another_version(digest: Callable[..., str], parts: dict[str, Any]) -> None:
    assert digest(**parts) != digest()


def test_the_manifest_holds_all_that_a_version_is(blobs: BlobStore, push: Push) -> None:
    signature = Signature.model_validate({"inputs": [{"name": "x", "datatype": "FP64", "shape": [-1]}]})
    request = PushRequest.model_validate(
        {"files": [f.model_dump() for f in push(FILES)], "metrics": {"auc": 0.9}, "git": {"commit": "a" * 40},
         "datasets": [dataset("b"), dataset("a")], "note": "not in the manifest", "alias": "champion"}
    )  # fmt: skip
    found = draft(request.files, PushHints.of(request, "3.11"), blobs)
    manifest = complete(found, LOCK, signature, request)
    document = json.loads(manifest.canonical_bytes())
    assert [file["path"] for file in document["files"]] == ["churn.py", "podium.yaml"]
    assert document["requirements"] == ["numpy"]
    assert document["lock"] == {"sha256": LOCK}
    assert document["git"] == {"commit": "a" * 40, "dirty": False}
    assert [each["name"] for each in document["datasets"]] == ["a", "b"]
    assert document["signature"]["inputs"][0]["name"] == "x"
    assert "not in the manifest" not in manifest.canonical_bytes().decode()
    assert Manifest.model_validate(document).digest() == manifest.digest()
    stated = request.model_copy(update={"signature": Signature(inputs=[])})
    found = draft(request.files, PushHints.of(stated, "3.11"), blobs)
    assert complete(found, LOCK, signature, stated).signature == Signature(inputs=[])


numbers = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=10)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lineage=st.dictionaries(texts, json_values, max_size=5),
    metrics=st.dictionaries(texts, numbers, max_size=5),
    data=st.data(),
)
def test_the_canonical_digest_is_stable_under_the_order_of_keys(
    manifest: Callable[..., Manifest], lineage: dict[str, Any], metrics: dict[str, float], data: st.DataObject
) -> None:
    """Also after a journey as JSON, with every object's keys shuffled on the way."""
    made = manifest(FILES, lineage=lineage, metrics=metrics)

    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: shuffled(value[key]) for key in data.draw(st.permutations(sorted(value)))}
        return [shuffled(item) for item in value] if isinstance(value, list) else value

    journey = json.dumps(
        shuffled(made.model_dump(mode="json", by_alias=True)), ensure_ascii=data.draw(st.booleans())
    )
    again = Manifest.model_validate_json(journey)
    assert again.canonical_bytes() == made.canonical_bytes()
    assert again.digest() == made.digest()


@pytest.mark.parametrize(
    ("parts", "field"),
    [
        ({"metrics": {"auc": float("nan")}}, "metrics"),
        ({"metrics": {"auc": float("inf")}}, "metrics"),
        ({"metrics": {"": 1}}, "metrics"),
        ({"lineage": {"x": float("nan")}}, "lineage"),
        ({"lineage": {"x": "\ud800"}}, "lineage"),
        ({"lineage": {"x": "y" * LINEAGE_BYTES}}, "lineage"),
        ({"lineage": json.loads('{"x":' * 900 + "1" + "}" * 900)}, "lineage"),
        ({"python": "3"}, "python"),
        ({"python": "3.11\n"}, "python"),
        ({"alias": "3"}, "alias"),
        ({"alias": "../x"}, "alias"),
        ({"git": {"commit": "main"}}, "git"),
        ({"flavor": "pickle"}, "flavor"),
        ({"flavour": "onnx"}, "flavour"),
        ({"requirements": ["x"] * 501}, "requirements"),
        ({"note": "x" * 20_000}, "note"),
        ({"files": []}, "files"),
    ],
)
def test_a_bad_request_names_its_field(parts: dict[str, Any], field: str) -> None:
    document = {"files": [{"path": "a", "size": 1, "sha256": "0" * 64}], **parts}
    with pytest.raises(ValidationError) as error:
        PushRequest.model_validate(document)
    assert error.value.errors()[0]["loc"][0] == field


@pytest.mark.parametrize("uri", ["", "models:/a\nb", "x" * 3000, "models:/ü/1", " models:/a/1"])
def test_a_bad_import_request_names_its_field(uri: str) -> None:
    with pytest.raises(ValidationError) as error:
        ImportRequest.model_validate({"uri": uri})
    assert error.value.errors()[0]["loc"] == ("uri",)


def test_canonical_json_knows_no_nan() -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"x": float("nan")})


def dataset(name: str) -> dict[str, Any]:
    return {"name": name, "sha256": "0" * 64, "size": 1}
