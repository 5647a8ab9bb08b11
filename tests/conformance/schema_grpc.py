"""Every RPC by hand-made messages, each field of the answers looked at: python schema_grpc.py HOST:PORT.

Our own check of the gRPC side. Run by test_conformance in tritonclient's environment, for grpcio and the protocol's
generated messages; nothing of the client's own logic is used. Prints JSON lines, see `report`.
"""

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


def main():
    channel = grpc.insecure_channel(sys.argv[1])
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

    def ask(call, message):
        return whole(call(message, metadata=METADATA, timeout=20))

    def refused(call, message, code):
        try:
            ask(call, message)
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

    def infer(datatypes, raw, version="", outputs=()):
        answer = ask(stub.ModelInfer, request(datatypes, raw, version, outputs))
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

    def metadata(version):
        found = ask(stub.ModelMetadata, pb.ModelMetadataRequest(name=NAME, version=version))
        same((found.name, list(found.versions)), (NAME, [VERSION]))
        same([one.datatype for one in found.inputs], list(RAW))
        assert all(list(one.shape) == [-1] for one in [*found.inputs, *found.outputs])
        assert found.platform

    def server():
        found = ask(stub.ServerMetadata, pb.ServerMetadataRequest())
        assert found.name and found.version

    def row(call, function):
        check("gRPC", call, function)

    row("ServerLive", lambda: same(ask(stub.ServerLive, pb.ServerLiveRequest()).live, True))
    row("ServerReady", lambda: same(ask(stub.ServerReady, pb.ServerReadyRequest()).ready, True))
    row("ServerMetadata", server)
    row("ModelReady", lambda: same(ask(stub.ModelReady, pb.ModelReadyRequest(name=NAME)).ready, True))
    row(
        "ModelReady, version",
        lambda: same(ask(stub.ModelReady, pb.ModelReadyRequest(name=NAME, version=VERSION)).ready, True),
    )
    row("ModelMetadata", lambda: metadata(""))
    row("ModelMetadata, version", lambda: metadata(VERSION))
    row("ModelInfer", lambda: infer(["FP64"], False))
    row("ModelInfer, version", lambda: infer(["FP64"], False, VERSION))
    row("ModelInfer, several inputs and outputs", lambda: infer(["FP64", "INT32", "BYTES"], True))
    row("ModelInfer, one of two outputs", lambda: infer(["FP64", "INT32"], True, outputs=("int32",)))
    for datatype in RAW:
        row(f"ModelInfer, {datatype} raw", lambda datatype=datatype: infer([datatype], True))
    for datatype in TYPED:
        row(f"ModelInfer, {datatype} typed", lambda datatype=datatype: infer([datatype], False))
    row(
        "unknown version is refused",
        lambda: refused(stub.ModelInfer, request(["FP64"], True, "99"), "NOT_FOUND"),
    )
    row(
        "unknown model is refused",
        lambda: refused(stub.ModelReady, pb.ModelReadyRequest(name="nobody"), "NOT_FOUND"),
    )
    short = request(["FP64"], True)
    short.raw_input_contents[0] = b"\0" * 15
    row("unknown input is refused", lambda: refused(stub.ModelInfer, stranger(), "INVALID_ARGUMENT"))
    row("truncated raw tensor is refused", lambda: refused(stub.ModelInfer, short, "INVALID_ARGUMENT"))
    other = channel.unary_unary(SERVICE + "RepositoryIndex")
    row("unknown RPC is UNIMPLEMENTED", lambda: refused_bytes(other, "UNIMPLEMENTED"))
    channel.close()


def stranger():
    """A request with an input that the model has not."""
    made = pb.ModelInferRequest(model_name=NAME)
    made.inputs.add(name="nobody", datatype="FP64", shape=[1])
    made.raw_input_contents.append(bytes(8))
    return made


def refused_bytes(call, code):
    """Raise unless a call with an empty message is refused with this code."""
    try:
        call(b"", metadata=METADATA, timeout=20)
    except grpc.RpcError as error:
        same(error.code().name, code)
    else:
        raise AssertionError("it was answered")


if __name__ == "__main__":
    main()
