"""Records of answers: what the model server writes is read as it was meant, anything else is refused."""

import json
import math
import string
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from podium.analysis.answers import LINE_BYTES, VALUES, Answer, read_answer
from podium_runtime.recording import Recorder

NAMES = st.text(string.ascii_letters + "_-. é", min_size=1, max_size=20)
SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9)
NUMBERS = st.sampled_from([np.float16, np.float32, np.float64, np.int8, np.int64, np.uint64, np.bool_])
OUTPUTS = st.one_of(
    NUMBERS.flatmap(lambda kind: arrays.arrays(kind, SHAPES)),
    st.lists(st.one_of(st.none(), st.text(max_size=60)), max_size=80).map(
        lambda texts: np.array([*texts, None], object)[:-1]
    ),
)


def written(status: int, outputs: dict[str, Any] | None, **headers: bytes) -> list[bytes]:
    """The lines of one answer, as a replica writes them."""
    with TemporaryDirectory() as folder:
        recorder = Recorder(Path(folder))
        told = {b"x-request-id": b"r1"} | {
            name.encode().replace(b"_", b"-"): v for name, v in headers.items()
        }
        recorder.add(told, status, 0.25, outputs)
        recorder.close()
        lines = [line for path in sorted(Path(folder).iterdir()) for line in path.read_bytes().split(b"\n")]
        return [line for line in lines if line and not line.startswith((b'{"before"', b'{"lost"'))]


def read(status: int, outputs: dict[str, Any] | None, **headers: bytes) -> Answer:
    [line] = written(status, outputs, **headers)
    found = read_answer(line)
    assert found is not None, line
    return found


@settings(deadline=None, max_examples=60)
@given(outputs=st.dictionaries(NAMES, OUTPUTS, min_size=1, max_size=4))
def test_what_is_written_is_read_as_it_was(outputs: dict[str, Any]) -> None:
    found = read(200, outputs)
    assert (found.id, found.copy, found.status, found.seconds) == ("r1", False, 200, 0.25)
    assert set(found.outputs) == set(outputs)
    for name, array in outputs.items():
        kept = found.outputs[name]
        assert kept.shape == array.shape
        assert len(kept.values) <= VALUES
        assert len(kept.values) % kept.width == 0
        if array.size <= VALUES and kept.kind != "text":
            for mine, theirs in zip(array.ravel().tolist(), kept.values, strict=True):
                finite = not isinstance(mine, float) or math.isfinite(mine)
                assert theirs == pytest.approx(mine, rel=1e-6) if finite else math.isnan(float(theirs or 0))


def test_copies_and_failures() -> None:
    assert read(200, {"y": np.arange(3)}, x_podium_shadow=b"true").copy
    failed = read(503, None)
    assert not failed.answered
    assert failed.outputs == {}


def good(**changes: Any) -> dict[str, Any]:
    return {"id": "a", "at": 1.0, "s": 0.1, "status": 200, "out": {"y": ["f", [2], [1.0, None]]}} | changes


def test_a_good_line_is_read() -> None:
    assert read_answer(json.dumps(good()).encode()) is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"id": ""},
        {"id": "x" * 129},
        {"id": "a\nb"},
        {"id": 7},
        {"at": -1.0},
        {"at": 1e300},
        {"at": True},
        {"s": "0.1"},
        {"s": 1e9},
        {"status": 99},
        {"status": 200.0},
        {"status": True},
        {"out": []},
        {"out": {f"y{number}": ["f", [0], []] for number in range(17)}},
        {"out": {"y" * 300: ["f", [0], []]}},
        {"out": {"y\x00": ["f", [0], []]}},
        {"out": {"y": ["x", [1], [1]]}},
        {"out": {"y": ["f", [1]]}},
        {"out": {"y": ["f", [-1], [1.0]]}},
        {"out": {"y": ["f", [True], [1.0]]}},
        {"out": {"y": ["f", [1] * 9, [1.0]]}},
        {"out": {"y": ["f", [65], [1.0] * 65]}},
        {"out": {"y": ["f", [1, 2], [1.0]]}},
        {"out": {"y": ["f", [1], ["nan"]]}},
        {"out": {"y": ["i", [1], [1.5]]}},
        {"out": {"y": ["i", [1], [True]]}},
        {"out": {"y": ["i", [1], [10**30]]}},
        {"out": {"y": ["b", [1], [1]]}},
        {"out": {"y": ["t", [1], [1]]}},
        {"out": {"y": ["t", [1], ["x" * 200]]}},
        {"out": {"y": ["t", [1], ["\ud800"]]}},
        {"out": {"\ud800": ["t", [1], ["a"]]}},
    ],
)
def test_what_no_recorder_writes_is_refused(changes: dict[str, Any]) -> None:
    assert read_answer(json.dumps(good(**changes)).encode()) is None


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"{}",
        b"\xff\xfe",
        b"[" * 50_000,
        b" " * (LINE_BYTES + 1),
        b'{"id":NaN}',
    ],
)
def test_anything_else_is_refused(line: bytes) -> None:
    assert read_answer(line) is None


@settings(max_examples=300)
@given(line=st.one_of(st.binary(max_size=200), st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["id", "at", "s", "status", "out", "copy"]), inner, max_size=6
    ),
).map(lambda value: json.dumps(value).encode())))  # fmt: skip
def test_no_line_raises(line: bytes) -> None:
    read_answer(line)
