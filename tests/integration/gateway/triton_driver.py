"""Triton's gRPC client as a process: reads calls as JSON lines, writes an answer for each.

Runs in an environment of its own, without podium. An answer is what the client returned, or {"code", "message"} of the
error that it raised; {"bug"} is an error of this script. A call is done by the function of its name below.
"""

import collections
import json
import sys
import threading
import time
import traceback

import grpc
import numpy as np
import tritonclient.grpc as triton
from google.protobuf import json_format
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

CLIENTS = {}
METHOD = "/inference.GRPCInferenceService/"


def client(url, authority=None):
    key = (url, authority)
    if key not in CLIENTS:
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        if authority:
            options.append(("grpc.default_authority", authority))
        CLIENTS[key] = (
            triton.InferenceServerClient(url, channel_args=options),
            grpc.insecure_channel(url, options),
        )
    return CLIENTS[key]


def trust(url, ca):
    """From now on the server there is asked over TLS."""
    with open(ca, "rb") as file:
        roots = grpc.ssl_channel_credentials(file.read())
    asked = triton.InferenceServerClient(url, ssl=True, root_certificates=ca)
    CLIENTS[url, None] = (asked, grpc.secure_channel(url, roots))
    return {}


def live(url, headers=None, authority=None):
    return {"live": client(url, authority)[0].is_server_live(headers=headers, client_timeout=20)}


def ready(url, headers=None):
    return {"ready": client(url)[0].is_server_ready(headers=headers, client_timeout=20)}


def model_ready(url, name, version="", headers=None):
    return {"ready": client(url)[0].is_model_ready(name, version, headers=headers, client_timeout=20)}


def server_metadata(url, headers=None):
    return client(url)[0].get_server_metadata(headers=headers, as_json=True, client_timeout=20)


def model_metadata(url, name, version="", headers=None):
    return client(url)[0].get_model_metadata(name, version, headers=headers, as_json=True, client_timeout=20)


def array_of(tensor):
    if "ones" in tensor:
        return np.ones(tensor["ones"], dtype=triton_to_np_dtype(tensor["datatype"]))
    if tensor["datatype"] == "BYTES":
        data = [value.encode() for value in tensor["data"]]
        return np.array(data, dtype=object).reshape(tensor["shape"])
    return np.array(tensor["data"], dtype=triton_to_np_dtype(tensor["datatype"])).reshape(tensor["shape"])


def infer(url, name, inputs, version="", outputs=None, headers=None, authority=None, **more):
    """By the client's own means: tensors travel raw."""
    given = []
    for tensor in inputs:
        array = array_of(tensor)
        made = triton.InferInput(tensor["name"], list(array.shape), tensor["datatype"])
        made.set_data_from_numpy(array)
        given.append(made)
    wanted = [triton.InferRequestedOutput(output) for output in outputs] if outputs else None
    result = client(url, authority)[0].infer(
        name, given, version, outputs=wanted, headers=headers, **{"client_timeout": 20, **more}
    )
    response = result.get_response()
    found = {}
    for output in response.outputs:
        array = result.as_numpy(output.name)
        whole = array.size <= 100
        found[output.name] = {
            "datatype": output.datatype,
            "shape": list(output.shape),
            "data": [v.decode() if isinstance(v, bytes) else v for v in array.ravel().tolist()]
            if whole
            else None,
            "sum": 0.0 if array.dtype == object else float(array.astype(np.float64).sum()),
        }
    return {
        "name": response.model_name,
        "version": response.model_version,
        "id": response.id,
        "raw": len(response.raw_output_contents),
        "outputs": found,
    }


def message(url, request, headers=None):
    """ModelInfer with the fields of a request as they are: tensors may be typed."""
    stub = service_pb2_grpc.GRPCInferenceServiceStub(client(url)[1])
    made = json_format.ParseDict(request, service_pb2.ModelInferRequest())
    answer = stub.ModelInfer(made, metadata=list((headers or {}).items()), timeout=20)
    return json_format.MessageToDict(answer, preserving_proto_field_name=True)


def octets(url, method, body, headers=None):
    """Any bytes (in hexadecimal digits) as the message of any method."""
    call = client(url)[1].unary_unary(method if method.startswith("/") else METHOD + method)
    return {"body": call(bytes.fromhex(body), metadata=list((headers or {}).items()), timeout=20).hex()}


def garbage(url, count, headers=None):
    """Random messages to ModelInfer, half of them a good one with some octets changed; how often each code came."""
    dice = np.random.default_rng(7)
    call = client(url)[1].unary_unary(METHOD + "ModelInfer")
    good = service_pb2.ModelInferRequest(model_name="churn", id="1")
    tensor = good.inputs.add(name="x", datatype="INT32", shape=[2, 2])
    tensor.contents.int_contents.extend([1, 2, 3, 4])
    codes = collections.Counter()
    for number in range(count):
        body = bytearray(good.SerializeToString() if number % 2 else dice.bytes(dice.integers(0, 200)))
        for _ in range(3 if number % 2 else 0):
            body[dice.integers(len(body))] = dice.integers(256)
        codes[
            code_of(lambda body=body: call(bytes(body), metadata=list((headers or {}).items()), timeout=20))
        ] += 1
    return dict(codes)


def many(url, name, inputs, count, threads=1, headers=None, version=""):
    """The same call again and again; how often each version or code answered, and the seconds per call."""
    lock, left, seen = threading.Lock(), [count], collections.Counter()
    array = [array_of(tensor) for tensor in inputs]
    given = [
        triton.InferInput(t["name"], list(a.shape), t["datatype"]) for t, a in zip(inputs, array, strict=True)
    ]
    for tensor, values in zip(given, array, strict=True):
        tensor.set_data_from_numpy(values)
    sender = client(url)[0]

    def one():
        result = sender.infer(name, given, version, headers=headers, client_timeout=20)
        return result.get_response().model_version

    def work():
        while True:
            with lock:
                if left[0] == 0:
                    return
                left[0] -= 1
            found = code_of(one)
            with lock:
                seen[found] += 1

    began = time.perf_counter()
    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return {"seen": dict(seen), "seconds": (time.perf_counter() - began) / count}


def stream(url, name, headers=None):
    """What the callback of a streamed call gets first."""
    answered, got = threading.Event(), []

    def callback(result, error):
        got.append((result, error))
        answered.set()

    sender = triton.InferenceServerClient(url)
    sender.start_stream(callback, headers=headers)
    tensor = triton.InferInput("x", [1], "INT32")
    tensor.set_data_from_numpy(np.array([1], dtype=np.int32))
    try:
        sender.async_stream_infer(name, [tensor])
    except InferenceServerException:
        assert answered.wait(30), "a stream that ended without a word"
    answered.wait(20)
    sender.stop_stream()
    [error] = [error for _, error in got[:1]]
    raise error


def other(url, rpc, headers=None):
    """One of Triton's own RPCs, beyond the protocol."""
    sender = client(url)[0]
    calls = {
        "statistics": lambda: sender.get_inference_statistics(headers=headers, client_timeout=20),
        "repository": lambda: sender.get_model_repository_index(headers=headers, client_timeout=20),
        "load": lambda: sender.load_model("churn", headers=headers, client_timeout=20),
        "config": lambda: sender.get_model_config("churn", headers=headers, client_timeout=20),
    }
    return {"answer": str(calls[rpc]())}


def code_of(call):
    try:
        found = call()
    except InferenceServerException as error:
        return error.status().rpartition(".")[2]
    except grpc.RpcError as error:
        return error.code().name
    return found if isinstance(found, str) else "OK"


def main():
    for line in sys.stdin:
        given = json.loads(line)
        try:
            answer = globals()[given.pop("call")](**given)
        except InferenceServerException as error:
            answer = {"code": (error.status() or "").rpartition(".")[2], "message": error.message()}
        except grpc.RpcError as error:
            answer = {"code": error.code().name, "message": error.details()}
        except Exception:
            answer = {"bug": traceback.format_exc()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
