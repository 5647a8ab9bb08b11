"""Every call of the protocol by tritonclient: python triton_client.py HTTP GRPC (host:port each; `-`: without).

Run by test_conformance in the client's own environment. Prints JSON lines, see `report`.
"""

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


def refuses(function, *statuses):
    try:
        function()
    except InferenceServerException as error:
        assert (error.status() or "").rpartition(".")[2] in statuses, error
    else:
        raise AssertionError("it was answered")


def both(transport, module, client, headers, missing, wrong):
    """The checks that the two clients share."""
    many = {"headers": headers}
    answers = {"ServerLive": client.is_server_live, "ServerReady": client.is_server_ready}
    for call, function in answers.items():
        check(transport, call, lambda function=function: same(function(**many), True))
    check(transport, "ModelReady", lambda: same(client.is_model_ready(NAME, **many), True))
    check(transport, "ModelReady, version", lambda: same(client.is_model_ready(NAME, VERSION, **many), True))

    def server_metadata():
        found = client.get_server_metadata(**many)
        name, version = (
            (found.name, found.version) if hasattr(found, "name") else (found["name"], found["version"])
        )
        assert name and version

    def model_metadata(version):
        found = client.get_model_metadata(NAME, version, **many)
        get = found.get if isinstance(found, dict) else lambda key: getattr(found, key)
        same(get("name"), NAME)
        same(list(get("versions")), [VERSION])
        assert get("platform")
        specs = [
            (one["name"], one["datatype"], one["shape"]) if isinstance(one, dict)
            else (one.name, one.datatype, list(one.shape))
            for one in get("inputs")
        ]  # fmt: skip
        same(specs, [(datatype.lower(), datatype, [-1]) for datatype in DATATYPES])

    check(transport, "ServerMetadata", server_metadata)
    check(transport, "ModelMetadata", lambda: model_metadata(""))
    check(transport, "ModelMetadata, version", lambda: model_metadata(VERSION))

    def infer(datatypes, version="", outputs=None, **how):
        arrays = {datatype.lower(): array_of(datatype) for datatype in datatypes}
        given = [tensor(module, datatype, arrays[datatype.lower()], **how) for datatype in datatypes]
        wanted = None
        if outputs:
            wanted = [
                module.InferRequestedOutput(name, **({} if not how else {"binary_data": False}))
                for name in outputs
            ]
        result = client.infer(NAME, given, version, outputs=wanted, request_id="id-7", **many)
        response = result.get_response()
        get = response.get if isinstance(response, dict) else lambda key: getattr(response, key)
        same(get("id"), "id-7")
        same(get("model_name"), NAME)
        same(get("model_version"), VERSION)
        names = [one["name"] if isinstance(one, dict) else one.name for one in get("outputs")]
        same(set(names), set(outputs or arrays))
        for name in names:
            found = result.as_numpy(name)
            assert found.shape == arrays[name].shape, found.shape
            if arrays[name].dtype == object:
                texts = [value if isinstance(value, bytes) else value.encode() for value in found]
                same(texts, list(arrays[name]))
            else:
                assert np.array_equal(found, arrays[name]), f"{name}: {found}"

    check(transport, "ModelInfer", lambda: infer(["FP64"]))
    check(transport, "ModelInfer, version", lambda: infer(["FP64"], VERSION))
    check(transport, "ModelInfer, several inputs and outputs", lambda: infer(["FP64", "INT32", "BYTES"]))
    check(transport, "ModelInfer, one of two outputs", lambda: infer(["FP64", "INT32"], outputs=["int32"]))
    for datatype in DATATYPES:
        check(transport, f"ModelInfer, {datatype} raw", lambda datatype=datatype: infer([datatype]))
        if transport.startswith("REST"):
            if datatype in ("FP16", "BF16"):
                check(
                    transport,
                    f"ModelInfer, {datatype} typed",
                    lambda: (_ for _ in ()).throw(NotOffered("binary only")),
                )
            else:
                check(
                    transport,
                    f"ModelInfer, {datatype} typed",
                    lambda datatype=datatype: infer(
                        [datatype], outputs=[datatype.lower()], binary_data=False
                    ),
                )
    good = tensor(module, "FP64", array_of("FP64"))
    bad = module.InferInput("fp64", [3], "INT32")
    bad.set_data_from_numpy(np.array([1, 2, 3], dtype=np.int32))
    stranger = module.InferInput("nobody", [3], "FP64")
    stranger.set_data_from_numpy(array_of("FP64"))
    check(
        transport,
        "unknown version is refused",
        lambda: refuses(lambda: client.infer(NAME, [good], "99", **many), *missing),
    )
    check(
        transport,
        "unknown input is refused",
        lambda: refuses(lambda: client.infer(NAME, [stranger], **many), *wrong),
    )


def main():
    http, grpc = sys.argv[1:]
    if http != "-":
        client = tritonclient.http.InferenceServerClient(http)
        transport = "REST"
        both(transport, tritonclient.http, client, None, ("404",), ("400",))
        check(
            transport,
            "unknown model is refused",
            lambda: refuses(lambda: client.get_model_metadata("nobody"), "404"),
        )
    if grpc != "-":
        client = tritonclient.grpc.InferenceServerClient(grpc)
        headers = {"podium-deployment": NAME}
        both("gRPC", tritonclient.grpc, client, headers, ("NOT_FOUND",), ("INVALID_ARGUMENT",))
        check(
            "gRPC",
            "unknown model is refused",
            lambda: refuses(lambda: client.get_model_metadata("nobody", headers=headers), "NOT_FOUND"),
        )


if __name__ == "__main__":
    main()
