"""PyTorch beyond one tensor in and one out, and what is refused."""

import contextlib
import io
import json
import os
import pickle
import zipfile

import numpy as np
import pytest

from podium.resources.errors import InvalidInput
from podium_runtime.errors import ModelUnusable
from podium_runtime.flavors import load_model
from podium_runtime.probing import examine
from podium_runtime.signature import InputCheck
from tests.flavors.cases import NET, net
from tests.flavors.pushing import pushed

torch = pytest.importorskip("torch")


class Pair(torch.nn.Module):
    """Two inputs, one of them by name, and a dict of outputs."""

    def forward(self, x, *, shift):
        x += shift  # writes into what it was given
        return {"sum": x.sum(1), "halves": x.to(torch.bfloat16) / 2}


@pytest.fixture
def pair(tmp_path):
    rows = torch.export.Dim("rows", min=1)
    shapes = {"x": {0: rows}, "shift": {0: rows}}
    made = torch.export.export(
        Pair(), (torch.ones(2, 3),), {"shift": torch.ones(2, 1)}, dynamic_shapes=shapes
    )
    torch.export.save(made, tmp_path / "m.pt2")
    return load_model("pytorch", tmp_path, "m.pt2", {"format": "exported"}, threads=1)


class Across(torch.nn.Module):
    """Has the same form as a model that works row by row, and does not."""

    def forward(self, x):
        return (x @ x.T).softmax(1) @ x


def test_a_graph_promises_nothing_about_its_rows_and_is_asked(pair, tmp_path):
    rows = torch.export.Dim("rows", min=1)
    made = torch.export.export(Across(), (torch.ones(2, 3),), dynamic_shapes={"x": {0: rows}})
    torch.export.save(made, tmp_path / "across.pt2")
    across = load_model("pytorch", tmp_path, "across.pt2", {"format": "exported"}, threads=1)
    for model, independent in ((pair, True), (across, False)):
        assert model.infer_signature().works_by_row
        assert model.rows_independent is None
        assert examine(model, model.infer_signature(), None).independent is independent


def test_several_inputs_and_outputs_by_name(pair):
    assert pair.infer_signature().as_document() == {
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [-1, 3]},
            {"name": "shift", "datatype": "FP32", "shape": [-1, 1]},
        ],
        "outputs": [
            {"name": "sum", "datatype": "FP32", "shape": [-1]},
            {"name": "halves", "datatype": "BF16", "shape": [-1, 3]},
        ],
    }
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    x.setflags(write=False)
    shift = np.array([[1.0], [2.0]], dtype=np.float32)
    inputs, rows = InputCheck(pair.infer_signature()).check_inputs({"shift": shift, "x": x})
    outputs = pair.predict(inputs, None)
    assert rows == 2
    assert outputs["sum"].tolist() == [6.0, 18.0]
    assert outputs["halves"].tolist() == [[0.5, 1.0, 1.5], [2.5, 3.0, 3.5]]
    assert (outputs["halves"].dtype, x.tolist()[0]) == (np.float32, [0.0, 1.0, 2.0])
    assert list(pair.predict(inputs, frozenset({"sum"}))) == ["sum"]


def test_threads_are_those_of_the_replica(tmp_path):
    torch.jit.trace(net(), torch.ones(2, 4)).save(str(tmp_path / "m.pt"))
    before = torch.get_num_threads()
    try:
        load_model("pytorch", tmp_path, "m.pt", {"format": "torchscript"}, threads=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def saved(value):
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def test_a_pickle_of_torch_save_is_refused_at_push(tmp_path):
    for value in (net().state_dict(), {"a": 1}):
        with pytest.raises(InvalidInput, match=r"a pickle of torch\.save") as error:
            pushed(tmp_path, {"model.pt": saved(value)})
        assert "safetensors" in str(error.value.next_step)
    with pytest.raises(InvalidInput, match="a zip archive"):
        pushed(tmp_path, {"model.pth": pickle.dumps({"a": 1})})


def test_the_version_of_torch_is_read_where_it_stands(tmp_path):
    stream = io.BytesIO()
    torch.export.save(torch.export.export(net(), (torch.ones(2, 4),)), stream)
    draft = pushed(tmp_path, {"model.pt2": stream.getvalue()})
    assert draft.flavor.options == {"format": "exported"}
    assert draft.requirements == (f"torch=={torch.__version__.partition('+')[0]}",)
    assert not draft.notes


class Hostile:
    """Unpickling it makes a folder."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return (os.mkdir, (self.mark,))


def test_no_pickle_inside_an_exported_program_is_read(tmp_path):
    mark = tmp_path / "unpickled"
    torch.export.save(torch.export.export(net(), (torch.ones(2, 4),)), tmp_path / "good.pt2")
    with zipfile.ZipFile(tmp_path / "good.pt2") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    root = next(iter(members)).partition("/")[0]
    weights = f"{root}/data/weights/model_weights_config.json"
    pickled = json.loads(members[weights])
    next(iter(pickled["config"].values()))["use_pickle"] = True
    samples = {f"{root}/data/sample_inputs/model.pt": saved(Hostile(mark))}
    for changes, words in (
        (
            {weights: json.dumps(pickled).encode(), f"{root}/data/weights/weight_0": saved(Hostile(mark))},
            "as a pickle",
        ),
        (samples, "sample inputs"),
        ({f"{root}/data/aotinductor/model/code.so": b"\x7fELF"}, "neither a tensor nor a graph"),
        ({weights.upper(): b"{}"}, "two members of one name"),
    ):
        with zipfile.ZipFile(tmp_path / "bad.pt2", "w") as archive:
            for name, content in {**members, **changes}.items():
                archive.writestr(name, content)
        with pytest.raises(ModelUnusable, match=words):
            load_model("pytorch", tmp_path, "bad.pt2", {"format": "exported"}, threads=1)
    assert not mark.exists()
    # The last archive but one would have made the folder, had PyTorch been asked to read it.
    with zipfile.ZipFile(tmp_path / "bad.pt2", "w") as archive:
        for name, content in {**members, **samples}.items():
            archive.writestr(name, content)
    with contextlib.suppress(Exception):
        torch.export.load(tmp_path / "bad.pt2")
    assert mark.exists()


def test_weights_that_do_not_fit_are_named(tmp_path):
    from safetensors.torch import save_file

    (tmp_path / "misfit.py").write_text(NET)
    save_file(net().state_dict(), tmp_path / "w.safetensors")
    options = {"format": "safetensors", "class": "misfit:Net", "arguments": '{"hidden": 8}'}
    with pytest.raises(ModelUnusable, match=r"w\.safetensors does not fit Net"):
        load_model("pytorch", tmp_path, "w.safetensors", options, threads=1)
    with pytest.raises(ModelUnusable, match=r"no torch\.nn.Module called Other"):
        load_model("pytorch", tmp_path, "w.safetensors", options | {"class": "misfit:Other"}, threads=1)
    with pytest.raises(ModelUnusable, match="known are exported, torchscript, safetensors"):
        load_model("pytorch", tmp_path, "w.safetensors", {"format": "pickle"}, threads=1)
