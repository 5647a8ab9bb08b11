"""Records of answers, for the comparison with a shadow: what is written, how much, and what counts as lost."""

import contextlib
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import orjson
import pytest

from podium_runtime.grpc import PREFIX, schema, wire
from podium_runtime.recording import Recorder
from runtime.tests.replica import python_version, running, tensor

SOURCE = """
import numpy as np
class Model:
    def predict(self, inputs):
        x = inputs["x"]
        if x.size and x.ravel()[0] == 13:
            raise ValueError("unlucky")
        return {"y": x * 2, "label": np.where(x > 0, "up", "down").astype(object)}
    def predict_stream(self, inputs):
        yield {"y": inputs["x"]}
"""
ASKED = {"x-podium-record": "true"}


def told(folder: Path) -> list[dict]:
    """Every whole line of every segment, in order."""
    found = []
    for path in sorted(folder.glob("*.jsonl")):
        content = b""
        # It may be rotated away just now.
        with contextlib.suppress(FileNotFoundError):
            content = path.read_bytes()
        for line in content.split(b"\n"):
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
    return found


def answers(folder: Path) -> dict[str, dict]:
    return {line["id"]: line for line in told(folder) if "id" in line}


def wait_for(folder: Path, *ids: str) -> dict[str, dict]:
    deadline = time.monotonic() + 30
    while not set(ids) <= set(found := answers(folder)):
        assert time.monotonic() < deadline, f"not written: {set(ids) - set(found)}"
        time.sleep(0.02)
    return found


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records") / "inner"
    version = python_version(tmp_path_factory.mktemp("model"), SOURCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PODIUM_RECORDS", str(folder))
        with running(version.write()) as made:
            yield made, folder


def body(*values, **more):
    return {"inputs": [tensor(np.array(values, np.float32), "x")], **more}


def test_only_requests_that_ask_for_it_are_recorded(recording):
    replica, folder = recording
    before = time.time()
    assert replica.infer(body(1.0), {"x-request-id": "silent"}).status == 200
    assert replica.infer(body(1.5, -2.0), {"x-request-id": "mine", **ASKED}).status == 200
    copy = {"x-request-id": "copied", "x-podium-shadow": "true", **ASKED}
    assert replica.infer(body(3.0), copy).status == 200
    found = wait_for(folder, "mine", "copied")
    assert "silent" not in found
    assert found["mine"]["status"] == 200
    assert found["mine"]["out"] == {"y": ["f", [2], [3.0, -4.0]], "label": ["t", [2], ["up", "down"]]}
    assert before - 1 <= found["mine"]["at"] <= time.time() + 1
    assert 0 <= found["mine"]["s"] < 60
    assert "copy" not in found["mine"]
    assert found["copied"]["copy"] is True


def test_failures_and_refusals_are_recorded_without_outputs(recording):
    replica, folder = recording
    assert replica.infer(body(13.0), {"x-request-id": "failed", **ASKED}).status == 500
    refused = replica.infer({"inputs": "none"}, {"x-request-id": "refused", **ASKED})
    assert refused.status == 400
    found = wait_for(folder, "failed", "refused")
    assert (found["failed"]["status"], found["refused"]["status"]) == (500, 400)
    assert "out" not in found["failed"]
    assert "out" not in found["refused"]


def test_only_what_the_client_gets_is_compared(recording):
    replica, folder = recording
    wanted = body(1.0, outputs=[{"name": "label"}])
    assert replica.infer(wanted, {"x-request-id": "some", **ASKED}).status == 200
    assert list(wait_for(folder, "some")["some"]["out"]) == ["label"]


def test_grpc_and_the_other_protocols_are_recorded_too(recording):
    replica, folder = recording
    message = wire.encode(
        schema.INFER_REQUEST,
        {
            "model_name": "churn",
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [1]}],
            "raw_input_contents": [np.array([4.0], "<f4").tobytes()],
        },
    )
    called = replica.ask("POST", f"{PREFIX}ModelInfer", message, {"x-request-id": "grpc", **ASKED})
    assert called.status == 200
    content = {"instances": [{"x": 2.0}]}
    v1 = replica.ask("POST", "/v1/models/churn:predict", content, {"x-request-id": "v1", **ASKED})
    assert v1.status == 200, v1.body
    found = wait_for(folder, "grpc", "v1")
    assert found["grpc"]["out"]["y"] == ["f", [1], [8.0]]
    assert found["v1"]["out"]["y"][2] == [4.0]


def test_streams_are_left_out_and_a_request_without_an_id_is_counted(recording):
    replica, folder = recording
    streamed = replica.ask(
        "POST",
        "/v2/models/churn/generate_stream",
        body(1.0),
        {"x-request-id": "streamed", **ASKED},
    )
    assert streamed.status == 200
    assert replica.infer(body(1.0), ASKED).status == 200
    assert replica.infer(body(1.0), {"x-request-id": "after", **ASKED}).status == 200
    assert "streamed" not in wait_for(folder, "after")
    assert sum(line.get("lost", 0) for line in told(folder)) == 1


def test_a_folder_that_the_model_took_away_fails_no_request(tmp_path):
    folder = tmp_path / "records"
    recorder = Recorder(folder, segment_bytes=2000)
    write(recorder, 0, 5)
    wait_for(folder, "4")
    shutil.rmtree(folder)
    folder.write_text("a file in its place")
    write(recorder, 5, 40)
    time_limit = time.monotonic() + 30
    while recorder._lines and time.monotonic() < time_limit:
        time.sleep(0.02)
    folder.unlink()
    write(recorder, 40, 41)
    recorder.close()
    found = told(folder)
    lost = found[0]["before"] + sum(line.get("lost", 0) for line in found)
    assert lost + len(answers(folder)) == 41


def write(recorder, first, last, outputs=None):
    for number in range(first, last):
        made = {"y": np.arange(8.0)} if outputs is None else outputs
        recorder.add({b"x-request-id": b"%d" % number}, 200, 0.001, made)


def test_the_bytes_on_disk_are_bounded_and_what_went_is_known(tmp_path):
    recorder = Recorder(tmp_path, segment_bytes=10_000)
    for first in range(0, 2000, 200):
        write(recorder, first, first + 200)
        wait_for(tmp_path, str(first + 199))
        segments = list(tmp_path.iterdir())
        assert len(segments) <= 2
        assert sum(path.stat().st_size for path in segments) <= 20_000
    recorder.close()
    segments = sorted(tmp_path.iterdir())
    first = orjson.loads(segments[0].read_bytes().split(b"\n")[0])
    kept = answers(tmp_path)
    assert first["before"] + len(kept) == 2000
    assert sorted(map(int, kept)) == list(range(2000 - len(kept), 2000))


def test_more_than_the_disk_takes_in_is_lost_and_counted(tmp_path):
    recorder = Recorder(tmp_path)
    large = {f"y{number}": np.arange(64) / 7 for number in range(16)}
    # As a thread that the disk holds up: it does not run until all are there.
    recorder._wake.set()
    write(recorder, 0, 400, large)
    recorder._awake()
    recorder.close()
    kept, lost = answers(tmp_path), sum(line.get("lost", 0) for line in told(tmp_path))
    assert len(kept) + lost == 400
    assert lost > 0
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 8 * 2**20


FULL = """
import numpy as np, pathlib, resource, sys
from podium_runtime.recording import Recorder
folder = pathlib.Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, resource.RLIM_INFINITY))
recorder = Recorder(folder)
def write(first, last):
    for number in range(first, last):
        recorder.add({b"x-request-id": b"%d" % number}, 200, 0.001, {"y": np.arange(4.0)})
write(0, 30)
recorder.close()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
recorder._stopping, recorder._thread = False, None
write(30, 35)
recorder.close()
"""


def test_a_disk_that_was_full_is_written_to_again(tmp_path):
    """A limit on the size of files stands in for it: writes fail in the middle of a line there too."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], check=True, timeout=60)
    kept = answers(tmp_path)
    found = told(tmp_path)
    lost = sum(line.get("lost", 0) for line in found)
    assert 0 < len(kept) < 35
    assert len(kept) + lost == 35
    assert {str(number) for number in range(30, 35)} <= set(kept)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([1, 2], np.uint8), ["i", [2], [1, 2]]),
        (np.array([[True, False]]), ["b", [1, 2], [True, False]]),
        (np.array([0.1], np.float32), ["f", [1], [0.1]]),
        (np.array([0.5, np.nan, np.inf], np.float16), ["f", [3], [0.5, None, None]]),
        (np.array(["a", None, b"b", object()], object), ["t", [4], ["a", None, "b", "<object>"]]),
        (np.array("one"), ["t", [], ["one"]]),
        (np.zeros((0, 3)), ["f", [0, 3], []]),
        (np.arange(6).reshape(2, 3).T, ["i", [3, 2], [0, 3, 1, 4, 2, 5]]),
        (np.arange(100), ["i", [100], [number * 100 // 64 for number in range(64)]]),
        (
            np.arange(300).reshape(3, 100),
            ["i", [3, 100], [number * 100 // 64 for number in range(64)]],
        ),
        (
            np.arange(120).reshape(60, 2),
            ["i", [60, 2], [2 * (n * 60 // 32) + k for n in range(32) for k in (0, 1)]],
        ),
    ],
)
def test_what_is_kept_of_an_output(tmp_path, array, expected):
    recorder = Recorder(tmp_path)
    write(recorder, 0, 1, {"y": array})
    recorder.close()
    assert answers(tmp_path)["0"]["out"]["y"] == expected


def test_long_texts_differ_where_they_differ(tmp_path):
    recorder = Recorder(tmp_path)
    texts = ["x" * 5000 + end for end in ("a", "b", "a")]
    write(recorder, 0, 1, {"y": np.array(texts, object)})
    recorder.close()
    first, second, third = answers(tmp_path)["0"]["out"]["y"][2]
    assert first == third != second
    assert len(first) < 60


def test_outputs_that_cannot_be_written_are_lost_not_raised(tmp_path):
    class Odd:
        def __array__(self, *_, **__):
            raise RuntimeError("no")

    recorder = Recorder(tmp_path)
    write(recorder, 0, 1, {"y": Odd()})
    write(recorder, 1, 2, {"y\udc80": np.arange(2)})
    write(recorder, 2, 3)
    recorder.close()
    assert list(answers(tmp_path)) == ["2"]
    assert sum(line.get("lost", 0) for line in told(tmp_path)) == 2
