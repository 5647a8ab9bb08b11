"""Every call of the protocol by kserve's client: python kserve_client.py HTTP GRPC (host:port each; `-`: without).

Run by test_conformance in the client's own environment. Prints JSON lines, see `report`. Calls that its client classes
lack are made with its generated stub over gRPC, and are `NotOffered` over REST.
"""

import asyncio
import sys

import grpc
import httpx
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig
from kserve.protocol.grpc.grpc_predict_v2_pb2 import (
    ModelMetadataRequest,
    ModelReadyRequest,
    ServerMetadataRequest,
)
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub
from kserve.protocol.infer_type import RequestedOutput
from report import NotOffered, check, same

NAME, VERSION = "churn", "1"
HEADERS = {"podium-deployment": NAME}
ARRAYS = {
    "BOOL": np.array([True, False, True]),
    **{
        kind.upper(): np.array([0, 1, 100], dtype=kind)
        for kind in ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")
    },
    "FP16": np.array([0.5, -2.25, 3.0], dtype=np.float16),
    "FP32": np.array([0.5, -2.25, 3.0], dtype=np.float32),
    "FP64": np.array([0.5, -2.25, 3.0]),
    "BYTES": np.array([b"", "é".encode(), b"x"], dtype=object),
}  # fmt: skip


def run(coroutine):
    return asyncio.get_event_loop().run_until_complete(coroutine)


def request(datatypes, raw, outputs=None, version=None):
    inputs = []
    for datatype in datatypes:
        made = InferInput(datatype.lower(), list(ARRAYS[datatype].shape), datatype)
        made.set_data_from_numpy(ARRAYS[datatype], binary_data=raw)
        inputs.append(made)
    wanted = [RequestedOutput(name) for name in outputs] if outputs else None
    return InferRequest(NAME, inputs, request_id="id-7", request_outputs=wanted, model_version=version)


def judge(response, datatypes, outputs=None, versions=(VERSION,)):
    same(response.id, "id-7")
    same(response.model_name, NAME)
    assert response.model_version in versions, response.model_version
    found = {output.name: output for output in response.outputs}
    same(set(found), set(outputs or [datatype.lower() for datatype in datatypes]))
    for datatype in datatypes:
        if datatype.lower() in found:
            array, wanted = found[datatype.lower()].as_numpy(), ARRAYS[datatype]
            if wanted.dtype == object:
                same([v if isinstance(v, bytes) else v.encode() for v in array], list(wanted))
            else:
                assert np.array_equal(array, wanted), array


def not_offered(words):
    raise NotOffered(words)


# What its REST client reads from an answer is without the version: InferResponse.from_bytes leaves it out.
REST_VERSIONS = (VERSION, None)


def rest(url):
    client = InferenceRESTClient(RESTConfig(protocol="v2"))

    def infer(datatypes, raw, outputs=None):
        answer = run(client.infer(url, request(datatypes, raw, outputs), NAME))
        judge(answer, datatypes, outputs, REST_VERSIONS)

    def refused(name, status):
        try:
            run(client.infer(url, request(["FP64"], False), name))
        except httpx.HTTPStatusError as error:
            same(error.response.status_code, status)
        else:
            raise AssertionError("it was answered")

    yes = "REST"
    check(yes, "ServerLive", lambda: same(run(client.is_server_live(url)), True))
    check(yes, "ServerReady", lambda: same(run(client.is_server_ready(url)), True))
    check(yes, "ModelReady", lambda: same(run(client.is_model_ready(url, NAME)), True))
    check(
        yes,
        "ModelReady, version",
        lambda: same(run(client.is_model_ready(url, f"{NAME}/versions/{VERSION}")), True),
    )
    for call in ("ServerMetadata", "ModelMetadata", "ModelMetadata, version"):
        check(yes, call, lambda: not_offered("its REST client asks for no metadata"))
    calls(yes, infer)
    check(
        yes,
        "ModelInfer, version",
        lambda: judge(
            run(client.infer(url, request(["FP64"], False), f"{NAME}/versions/{VERSION}")),
            ["FP64"],
            versions=REST_VERSIONS,
        ),
    )
    check(yes, "unknown version is refused", lambda: refused(f"{NAME}/versions/99", 404))
    check(yes, "unknown model is refused", lambda: refused("nobody", 404))
    run(client.close())


def calls(transport, infer):
    check(transport, "ModelInfer", lambda: infer(["FP64"], False))
    check(
        transport, "ModelInfer, several inputs and outputs", lambda: infer(["FP64", "INT32", "BYTES"], False)
    )
    check(transport, "ModelInfer, one of two outputs", lambda: infer(["FP64", "INT32"], False, ["int32"]))
    for datatype in ARRAYS:
        check(transport, f"ModelInfer, {datatype} raw", lambda datatype=datatype: infer([datatype], True))
        if datatype == "FP16":
            check(
                transport,
                f"ModelInfer, {datatype} typed",
                lambda: not_offered("the client sends FP16 in binary only"),
            )
        else:
            check(
                transport, f"ModelInfer, {datatype} typed", lambda datatype=datatype: infer([datatype], False)
            )


def over_grpc(address):
    async def make():
        return InferenceGRPCClient(address), grpc.insecure_channel(address)

    client, channel = run(make())
    stub = GRPCInferenceServiceStub(channel)
    headers = tuple(HEADERS.items())
    more = {"metadata": headers, "timeout": 20}

    def infer(datatypes, raw, outputs=None, version=None):
        judge(
            run(client.infer(request(datatypes, raw, outputs, version), headers=headers)), datatypes, outputs
        )

    def metadata(version):
        found = stub.ModelMetadata(ModelMetadataRequest(name=NAME, version=version), **more)
        same((found.name, list(found.versions)), (NAME, [VERSION]))
        assert found.inputs[0].datatype == "BOOL" and list(found.inputs[0].shape) == [-1]

    def refused(function, code):
        try:
            function()
        except grpc.RpcError as error:
            same(error.code().name, code)
        else:
            raise AssertionError("it was answered")

    yes = "gRPC"
    check(yes, "ServerLive", lambda: same(run(client.is_server_live(headers=headers)), True))
    check(yes, "ServerReady", lambda: same(run(client.is_server_ready(headers=headers)), True))
    check(yes, "ModelReady", lambda: same(run(client.is_model_ready(NAME, headers=headers)), True))
    check(
        yes,
        "ModelReady, version",
        lambda: same(stub.ModelReady(ModelReadyRequest(name=NAME, version=VERSION), **more).ready, True),
    )
    check(
        yes,
        "ServerMetadata",
        lambda: same(bool(stub.ServerMetadata(ServerMetadataRequest(), **more).version), True),
    )
    check(yes, "ModelMetadata", lambda: metadata(""))
    check(yes, "ModelMetadata, version", lambda: metadata(VERSION))
    calls(yes, infer)
    check(yes, "ModelInfer, version", lambda: infer(["FP64"], False, version=VERSION))
    check(
        yes,
        "unknown version is refused",
        lambda: refused(lambda: infer(["FP64"], False, version="99"), "NOT_FOUND"),
    )
    check(
        yes,
        "unknown model is refused",
        lambda: refused(lambda: stub.ModelMetadata(ModelMetadataRequest(name="nobody"), **more), "NOT_FOUND"),
    )
    run(client.close())
    channel.close()


def main():
    asyncio.set_event_loop(asyncio.new_event_loop())
    http, rpc = sys.argv[1:]
    if http != "-":
        rest(f"http://{http}")
    if rpc != "-":
        over_grpc(rpc)


if __name__ == "__main__":
    main()
