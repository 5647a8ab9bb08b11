"""Every call of the protocol by tritonclient: python triton_client.py HTTP GRPC (host:port each; `-`: without).

Run by test_conformance in the client's own environment. Prints JSON lines, see `report`.
"""

import contextlib
import functools
import sys

import ml_dtypes
import numpy as np
import tritonclient.grpc
import tritonclient.http
from report import NotOffered, check, same
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

NAME, VERSION = "churn", "1"
DATATYPES = (
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "BF16", "FP32", "FP64",
    "BYTES",
)  # fmt: skip


def array_of(datatype):
    if datatype == "BYTES":
        return np.array([b"", "é".encode(), b"x\x01"], dtype=object)
    if datatype == "BOOL":
        return np.array([True, False, True])
    if datatype == "BF16":
        return np.array([0.5, -2.0, 3.0], dtype=ml_dtypes.bfloat16)
    dtype = np.dtype(triton_to_np_dtype(datatype))
    if dtype.kind in "iu":
        return np.array([np.iinfo(dtype).min, 1, np.iinfo(dtype).max], dtype=dtype)
    return np.array([0.5, -2.25, 3.0], dtype=dtype)


def tensor(module, datatype, array, **how):
    made = module.InferInput(datatype.lower(), list(array.shape), datatype)
    made.set_data_from_numpy(array, **how)
    return made


class Calls:
    """One of the two clients. `module` is its library, `wrong` and `missing` are statuses of its refusals."""

    def __init__(self, transport, module, address, headers, wrong, missing):
        self.transport, self.module = transport, module
        self.client = module.InferenceServerClient(address)
        self.many = {"headers": headers}
        self.statuses = {"wrong": wrong, "missing": missing}

    def says(self, method, *arguments):
        """Raise unless the client's answer is yes."""
        same(getattr(self.client, method)(*arguments, **self.many), True)

    def server_metadata(self):
        get = getter(self.client.get_server_metadata(**self.many))
        assert get("name") and get("version")

    def model_metadata(self, version):
        get = getter(self.client.get_model_metadata(NAME, version, **self.many))
        same(get("name"), NAME)
        same(list(get("versions")), [VERSION])
        assert get("platform")
        specs = [(one("name"), one("datatype"), list(one("shape"))) for one in map(getter, get("inputs"))]
        same(specs, [(datatype.lower(), datatype, [-1]) for datatype in DATATYPES])

    def infer(self, datatypes, version="", outputs=None, **how):
        arrays = {datatype.lower(): array_of(datatype) for datatype in datatypes}
        given = [tensor(self.module, datatype, arrays[datatype.lower()], **how) for datatype in datatypes]
        asked = {"binary_data": False} if how else {}
        wanted = [self.module.InferRequestedOutput(name, **asked) for name in outputs] if outputs else None
        result = self.client.infer(NAME, given, version, outputs=wanted, request_id="id-7", **self.many)
        get = getter(result.get_response())
        same((get("id"), get("model_name"), get("model_version")), ("id-7", NAME, VERSION))
        names = [getter(one)("name") for one in get("outputs")]
        same(set(names), set(outputs or arrays))
        for name in names:
            found = result.as_numpy(name)
            assert found.shape == arrays[name].shape, found.shape
            if arrays[name].dtype == object:
                texts = [value if isinstance(value, bytes) else value.encode() for value in found]
                same(texts, list(arrays[name]))
            else:
                assert np.array_equal(found, arrays[name]), f"{name}: {found}"

    def typed(self, datatype):
        """Values in the message's own fields, which over REST are JSON's."""
        if datatype in ("FP16", "BF16"):
            raise NotOffered("binary only")
        self.infer([datatype], outputs=[datatype.lower()], binary_data=False)

    def refused(self, kind, name, version):
        """Raise unless an input (`fp64` is known) at a version is refused as `wrong` or `missing`."""
        given = self.module.InferInput(name, [3], "FP64")
        given.set_data_from_numpy(array_of("FP64"))
        with refusal(self.statuses[kind]):
            self.client.infer(NAME, [given], version, **self.many)

    def unknown_model(self):
        with refusal(self.statuses["missing"]):
            self.client.get_model_metadata("nobody", **self.many)


def getter(answer):
    """Fields of an answer, which is a dict over REST and a message over gRPC."""
    return answer.get if isinstance(answer, dict) else lambda name: getattr(answer, name)


@contextlib.contextmanager
def refusal(status):
    try:
        yield
    except InferenceServerException as error:
        same((error.status() or "").rpartition(".")[2], status)
    else:
        raise AssertionError("it was answered")


CHECKS = [
    ("ServerLive", "says", "is_server_live"),
    ("ServerReady", "says", "is_server_ready"),
    ("ModelReady", "says", "is_model_ready", NAME),
    ("ModelReady, version", "says", "is_model_ready", NAME, VERSION),
    ("ServerMetadata", "server_metadata"),
    ("ModelMetadata", "model_metadata", ""),
    ("ModelMetadata, version", "model_metadata", VERSION),
    ("ModelInfer", "infer", ["FP64"]),
    ("ModelInfer, version", "infer", ["FP64"], VERSION),
    ("ModelInfer, several inputs and outputs", "infer", ["FP64", "INT32", "BYTES"]),
    ("ModelInfer, one of two outputs", "infer", ["FP64", "INT32"], "", ["int32"]),
    *((f"ModelInfer, {datatype} raw", "infer", [datatype]) for datatype in DATATYPES),
    ("unknown version is refused", "refused", "missing", "fp64", "99"),
    ("unknown input is refused", "refused", "wrong", "nobody", ""),
    ("unknown model is refused", "unknown_model"),
]
"""Row of the table, then the method of `Calls` and its arguments."""
TYPED = [(f"ModelInfer, {datatype} typed", "typed", datatype) for datatype in DATATYPES]
"""Over REST only: over gRPC the client sends raw tensors."""


def run(calls, checks):
    for row, method, *arguments in checks:
        check(calls.transport, row, functools.partial(getattr(calls, method), *arguments))


def main():
    http, grpc = sys.argv[1:]
    if http != "-":
        run(Calls("REST", tritonclient.http, http, None, "400", "404"), [*CHECKS, *TYPED])
    if grpc != "-":
        headers = {"podium-deployment": NAME}
        run(Calls("gRPC", tritonclient.grpc, grpc, headers, "INVALID_ARGUMENT", "NOT_FOUND"), CHECKS)


if __name__ == "__main__":
    main()
