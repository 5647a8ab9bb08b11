"""Every RPC by hand-made messages, each field of the answers looked at: python schema_grpc.py HOST:PORT.

Our own check of the gRPC side. Run by test_conformance in tritonclient's environment, for grpcio and the protocol's
generated messages; nothing of the client's own logic is used. Prints JSON lines, see `report`.
"""

import contextlib
import functools
import struct
import sys

import grpc
import numpy as np
from report import check, same
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

NAME, VERSION = "churn", "1"
METADATA = (("podium-deployment", NAME),)
SERVICE = "/inference.GRPCInferenceService/"
# Datatype -> the field of InferTensorContents that carries it, by the protocol's specification.
TYPED = {
    "BOOL": ("bool_contents", [True, False]), "UINT8": ("uint_contents", [0, 255]),
    "UINT16": ("uint_contents", [0, 65535]), "UINT32": ("uint_contents", [0, 2**32 - 1]),
    "UINT64": ("uint64_contents", [0, 2**64 - 1]), "INT8": ("int_contents", [-128, 127]),
    "INT16": ("int_contents", [-(2**15), 2**15 - 1]), "INT32": ("int_contents", [-(2**31), 2**31 - 1]),
    "INT64": ("int64_contents", [-(2**63), 2**63 - 1]), "FP32": ("fp32_contents", [0.5, -2.0]),
    "FP64": ("fp64_contents", [0.1, -1e300]), "BYTES": ("bytes_contents", [b"", b"ab"]),
}  # fmt: skip
RAW = {
    "BOOL": b"\1\0", "UINT8": b"\0\xff", "UINT16": b"\0\0\xff\xff", "UINT32": b"\0" * 4 + b"\xff" * 4,
    "UINT64": b"\0" * 8 + b"\xff" * 8, "INT8": b"\x80\x7f", "INT16": b"\0\x80\xff\x7f",
    "INT32": struct.pack("<2i", -5, 7), "INT64": struct.pack("<2q", -5, 7), "FP16": struct.pack("<2e", 0.5, -2.0),
    "BF16": b"\0\x3f\0\xc0", "FP32": struct.pack("<2f", 0.5, -2.0), "FP64": struct.pack("<2d", 0.5, -2.0),
    "BYTES": b"\0\0\0\0\2\0\0\0ab",
}  # fmt: skip


def whole(message):
    """Raise where an answer has fields that the protocol does not know."""
    kept = type(message)()
    kept.CopyFrom(message)
    kept.DiscardUnknownFields()
    same(kept.ByteSize(), message.ByteSize())
    return message


class Calls:
    """The service at an address, asked by its generated stub."""

    def __init__(self, address):
        self.channel = grpc.insecure_channel(address)
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(self.channel)

    def ask(self, method, message):
        return whole(getattr(self.stub, method)(message, metadata=METADATA, timeout=20))

    def says(self, method, message, field):
        """Raise unless that field of the answer is true."""
        same(getattr(self.ask(method, message), field), True)

    def refused(self, method, message, code):
        """Raise unless a call is refused with this code, in words."""
        with refusal(code):
            self.ask(method, message)

    def unknown(self, method):
        """Raise unless an RPC that is not the protocol's is UNIMPLEMENTED."""
        with refusal("UNIMPLEMENTED"):
            self.channel.unary_unary(SERVICE + method)(b"", metadata=METADATA, timeout=20)

    def server(self):
        found = self.ask("ServerMetadata", pb.ServerMetadataRequest())
        assert found.name and found.version

    def metadata(self, version):
        found = self.ask("ModelMetadata", pb.ModelMetadataRequest(name=NAME, version=version))
        same((found.name, list(found.versions)), (NAME, [VERSION]))
        same([one.datatype for one in found.inputs], list(RAW))
        assert all(list(one.shape) == [-1] for one in [*found.inputs, *found.outputs])
        assert found.platform

    def infer(self, datatypes, raw, version="", outputs=()):
        answer = self.ask("ModelInfer", request(datatypes, raw, version, outputs))
        same((answer.model_name, answer.model_version, answer.id), (NAME, VERSION, "id-7"))
        wanted = [datatype for datatype in datatypes if not outputs or datatype.lower() in outputs]
        # The order is the signature's.
        wanted.sort(key=list(RAW).index)
        same([output.name for output in answer.outputs], [datatype.lower() for datatype in wanted])
        same(len(answer.raw_output_contents), len(wanted) if raw else 0)
        for number, (output, datatype) in enumerate(zip(answer.outputs, wanted, strict=True)):
            same((output.datatype, list(output.shape)), (datatype, [2]))
            if raw:
                same(answer.raw_output_contents[number], RAW[datatype])
                same(output.HasField("contents"), False)
            else:
                field, values = TYPED[datatype]
                found = list(getattr(output.contents, field))
                exact = [float(np.float32(v)) for v in values] if datatype == "FP32" else values
                same(found, exact)


@contextlib.contextmanager
def refusal(code):
    try:
        yield
    except grpc.RpcError as error:
        same(error.code().name, code)
        assert error.details(), "no words"
    else:
        raise AssertionError("it was answered")


def request(datatypes, raw, version="", outputs=()):
    made = pb.ModelInferRequest(model_name=NAME, model_version=version, id="id-7")
    for datatype in datatypes:
        tensor = made.inputs.add(name=datatype.lower(), datatype=datatype, shape=[2])
        if raw:
            made.raw_input_contents.append(RAW[datatype])
        else:
            field, values = TYPED[datatype]
            getattr(tensor.contents, field).extend(values)
    for name in outputs:
        made.outputs.add(name=name)
    return made


def stranger():
    """A request with an input that the model has not."""
    made = pb.ModelInferRequest(model_name=NAME)
    made.inputs.add(name="nobody", datatype="FP64", shape=[1])
    made.raw_input_contents.append(bytes(8))
    return made


def short():
    """A request whose tensor is a byte too short."""
    made = request(["FP64"], True)
    made.raw_input_contents[0] = b"\0" * 15
    return made


CHECKS = [
    ("ServerLive", "says", "ServerLive", pb.ServerLiveRequest(), "live"),
    ("ServerReady", "says", "ServerReady", pb.ServerReadyRequest(), "ready"),
    ("ServerMetadata", "server"),
    ("ModelReady", "says", "ModelReady", pb.ModelReadyRequest(name=NAME), "ready"),
    ("ModelReady, version", "says", "ModelReady", pb.ModelReadyRequest(name=NAME, version=VERSION), "ready"),
    ("ModelMetadata", "metadata", ""),
    ("ModelMetadata, version", "metadata", VERSION),
    ("ModelInfer", "infer", ["FP64"], False),
    ("ModelInfer, version", "infer", ["FP64"], False, VERSION),
    ("ModelInfer, several inputs and outputs", "infer", ["FP64", "INT32", "BYTES"], True),
    ("ModelInfer, one of two outputs", "infer", ["FP64", "INT32"], True, "", ("int32",)),
    *((f"ModelInfer, {datatype} raw", "infer", [datatype], True) for datatype in RAW),
    *((f"ModelInfer, {datatype} typed", "infer", [datatype], False) for datatype in TYPED),
    ("unknown version is refused", "refused", "ModelInfer", request(["FP64"], True, "99"), "NOT_FOUND"),
    ("unknown model is refused", "refused", "ModelReady", pb.ModelReadyRequest(name="nobody"), "NOT_FOUND"),
    ("unknown input is refused", "refused", "ModelInfer", stranger(), "INVALID_ARGUMENT"),
    ("truncated raw tensor is refused", "refused", "ModelInfer", short(), "INVALID_ARGUMENT"),
    ("unknown RPC is UNIMPLEMENTED", "unknown", "RepositoryIndex"),
]
"""Row of the table, then the method of `Calls` and its arguments."""


def main():
    calls = Calls(sys.argv[1])
    for row, method, *arguments in CHECKS:
        check("gRPC", row, functools.partial(getattr(calls, method), *arguments))
    calls.channel.close()


if __name__ == "__main__":
    main()
