"""What both servers serve and are asked: a scikit-learn pipeline on 30 features, the same as ONNX, and requests.

Called by `sections` and `soak`. Fitted here and now on scikit-learn's breast cancer data; a request is one patient.
"""

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray

SEED = 20
FEATURES = 30
# Rows of 30 FP64 values that make one megabyte (2**20 bytes, but for the last 16).
ROWS_OF_A_MEGABYTE = 2**20 // (8 * FEATURES)

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Trained:
    """A fitted model in a file, the rows that it is asked about, and what it says of each by itself."""

    path: Path
    flavor: dict[str, Any]
    """As in a manifest of Podium."""
    datatype: str
    output: str
    """The output that is asked for."""
    rows: Matrix
    labels: NDArray[np.int64]


def pipeline(folder: Path) -> Trained:
    """StandardScaler and LogisticRegression as `model.joblib`."""
    estimator, rows = _fitted()
    path = folder / "model.joblib"
    joblib.dump(estimator, path)
    flavor = {"name": "sklearn", "entry": path.name, "options": {"format": "joblib"}}
    return Trained(path, flavor, "FP64", "predict", rows, estimator.predict(rows).astype(np.int64))


def onnx(folder: Path) -> Trained:
    """The same pipeline as `model.onnx`, its input FP32."""
    import onnxruntime
    from skl2onnx import to_onnx  # type: ignore[import-untyped]
    from skl2onnx.common.data_types import FloatTensorType  # type: ignore[import-untyped]

    estimator, rows = _fitted()
    converted = to_onnx(
        estimator,
        initial_types=[("input", FloatTensorType([None, FEATURES]))],
        options={id(estimator): {"zipmap": False}},
    )
    path = folder / "model.onnx"
    path.write_bytes(converted.SerializeToString())
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    labels = session.run(["label"], {"input": rows.astype(np.float32)})[0]
    flavor = {"name": "onnx", "entry": path.name, "options": {}}
    return Trained(path, flavor, "FP32", "label", rows, labels.astype(np.int64))


def _fitted() -> tuple[Any, Matrix]:
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    data = load_breast_cancer()
    estimator = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500, random_state=SEED))
    return estimator.fit(data.data, data.target), data.data


def megabyte(trained: Trained) -> tuple[Matrix, NDArray[np.int64]]:
    """Rows that together make one megabyte as FP64, and their labels."""
    times = -(-ROWS_OF_A_MEGABYTE // len(trained.rows))
    rows = np.tile(trained.rows, (times, 1))[:ROWS_OF_A_MEGABYTE]
    return rows, np.tile(trained.labels, times)[:ROWS_OF_A_MEGABYTE]


def json_body(trained: Trained, rows: Matrix) -> bytes:
    """An infer request in JSON for these rows."""
    values = rows.astype(np.float32) if trained.datatype == "FP32" else rows
    tensor = {"name": "input", "shape": list(rows.shape), "datatype": trained.datatype}
    document = {
        "inputs": [{**tensor, "data": values.ravel().tolist()}],
        "outputs": [{"name": trained.output}],
    }
    return json.dumps(document, separators=(",", ":")).encode()


def binary_body(trained: Trained, rows: Matrix) -> tuple[bytes, int]:
    """An infer request with the tensor in binary after the JSON (Triton's extension), and the length of the JSON."""
    content = _little_endian(trained, rows)
    tensor = {"name": "input", "shape": list(rows.shape), "datatype": trained.datatype}
    inputs = [{**tensor, "parameters": {"binary_data_size": len(content)}}]
    outputs = [{"name": trained.output, "parameters": {"binary_data": True}}]
    head = json.dumps({"inputs": inputs, "outputs": outputs}, separators=(",", ":")).encode()
    return head + content, len(head)


def grpc_message(trained: Trained, rows: Matrix, name: str) -> bytes:
    """A ModelInferRequest with `raw_input_contents`, which Triton's client sends."""
    shape = b"".join(_varint(size) for size in rows.shape)
    tensor = _field(1, b"input") + _field(2, trained.datatype.encode()) + _field(3, shape)
    output = _field(1, trained.output.encode())
    return (
        _field(1, name.encode())
        + _field(5, tensor)
        + _field(6, output)
        + _field(7, _little_endian(trained, rows))
    )


def http_request(address: str, path: str, body: bytes, headers: Sequence[tuple[str, str]] = ()) -> bytes:
    """A whole HTTP/1.1 POST."""
    sent = [("host", address), ("content-length", str(len(body))), *headers]
    if not any(name == "content-type" for name, _ in headers):
        sent.append(("content-type", "application/json"))
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in sent)]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def labels_of_json(answer: bytes) -> list[int]:
    """The integers of the only output in a whole HTTP answer, whether in JSON or in binary behind it."""
    head, _, body = answer.partition(b"\r\n\r\n")
    length = next(
        (int(line.partition(b":")[2]) for line in head.lower().split(b"\r\n")
         if line.startswith(b"inference-header-content-length")),
        len(body),
    )  # fmt: skip
    (output,) = json.loads(body[:length])["outputs"]
    if "data" not in output:
        assert output["datatype"] == "INT64"
        return [int(value) for value in np.frombuffer(body[length:], "<i8")]
    return [int(value) for value in np.ravel(output["data"])]


def labels_of_grpc(answer: bytes) -> list[int]:
    """The integers of the only output in a ModelInferResponse, raw or typed."""
    message = answer[5:]
    for raw in _fields(message, 6):
        return [value for (value,) in struct.iter_unpack("<q", raw)]
    (output,) = _fields(message, 5)
    (contents,) = _fields(output, 5)
    (packed,) = _fields(contents, 3)
    return list(_varints(packed))


def _little_endian(trained: Trained, rows: Matrix) -> bytes:
    return rows.astype("<f4" if trained.datatype == "FP32" else "<f8").tobytes()


def _varint(value: int) -> bytes:
    content = bytearray()
    while value >= 128:
        content.append(value % 128 + 128)
        value //= 128
    return bytes(content) + bytes((value,))


def _varints(content: bytes) -> list[int]:
    found, value, shift = [], 0, 0
    for byte in content:
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            found.append(value)
            value, shift = 0, 0
    return found


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field of Protocol Buffers."""
    return _varint(number * 8 + 2) + _varint(len(content)) + content


def _fields(message: bytes, number: int) -> list[bytes]:
    """The length-delimited fields of this number in a message that has no fixed-width ones."""
    found, at = [], 0

    def take() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        key = take()
        size = take()
        if key & 7 == 2:
            if key >> 3 == number:
                found.append(message[at : at + size])
            at += size
    return found
