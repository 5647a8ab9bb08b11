"""Every path of spec/open-inference.yaml, its answers validated against it. Our own check of the REST side.

Called by test_conformance. A path that the description has and this file does not know is a row that fails, so that
the table stays complete.
"""

from collections.abc import Callable, Iterator
from typing import Any

from runtime.tests.contract import DOCUMENT, conforms
from runtime.tests.replica import Answer
from tests.conformance.echo import DATATYPES, NAME, VERSION

Ask = Callable[..., Answer]
Row = tuple[str, str, str]
VALUES: dict[str, list[Any]] = {
    "BOOL": [True, False], "UINT8": [0, 255], "UINT16": [0, 65535], "UINT32": [0, 2**32 - 1],
    "UINT64": [0, 2**64 - 1], "INT8": [-128, 127], "INT16": [-(2**15), 2**15 - 1], "INT32": [-(2**31), 2**31 - 1],
    "INT64": [-(2**63), 2**63 - 1], "FP16": [0.5, -2.25], "FP32": [0.5, -2.25], "FP64": [0.1, -1e300],
    "BYTES": ["", "é\n"],
}  # fmt: skip
# Of the description's paths: what the protocol calls them, and the path that is asked.
CALLS = {
    "/v2/health/live": "ServerLive",
    "/v2/health/ready": "ServerReady",
    "/v2": "ServerMetadata",
    "/v2/models/{name}/ready": "ModelReady",
    "/v2/models/{name}/versions/{version}/ready": "ModelReady, version",
    "/v2/models/{name}": "ModelMetadata",
    "/v2/models/{name}/versions/{version}": "ModelMetadata, version",
    "/v2/models/{name}/infer": "ModelInfer",
    "/v2/models/{name}/versions/{version}/infer": "ModelInfer, version",
}
ELSEWHERE = "tested in runtime/tests and not part of the protocol"


def tensor(datatype: str, values: list[Any]) -> dict[str, Any]:
    """An input of the echoing model."""
    return {"name": datatype.lower(), "datatype": datatype, "shape": [len(values)], "data": values}


def rows(ask: Ask, behind: bool) -> Iterator[Row]:
    """(transport, call, pass or the reason) of every check. `behind`: a gateway, which answers some paths itself."""
    for path, item in DOCUMENT["paths"].items():
        for method in ("get", "post"):
            if method in item:
                call = CALLS.get(path, f"{method.upper()} {path}")
                yield (
                    "REST",
                    call,
                    _row(lambda path=path, method=method: _path(ask, path, method, behind)),
                )
    for datatype in DATATYPES:
        if datatype in VALUES:
            yield (
                "REST",
                f"ModelInfer, {datatype} typed",
                _row(lambda datatype=datatype: _infer(ask, [datatype])),
            )
    yield (
        "REST",
        "ModelInfer, several inputs and outputs",
        _row(lambda: _infer(ask, ["FP64", "INT32", "BYTES"])),
    )
    yield "REST", "ModelInfer, one of two outputs", _row(lambda: _infer(ask, ["FP64", "INT32"], ["int32"]))
    strangers = {
        "unknown version is refused": (f"/v2/models/{NAME}/versions/99/infer", 404),
        "unknown model is refused": ("/v2/models/nobody/infer", 404),
    }
    for call, (path, status) in strangers.items():
        yield (
            "REST",
            call,
            _row(lambda path=path, status=status: _refused(ask, path, [tensor("FP64", [1.0])], status)),
        )
    nobody = {**tensor("FP64", [1.0]), "name": "nobody"}
    place = f"/v2/models/{NAME}/infer"
    yield "REST", "unknown input is refused", _row(lambda: _refused(ask, place, [nobody], 400))
    wrong = {**tensor("FP64", [1.0]), "shape": [2]}
    yield "REST", "truncated tensor is refused", _row(lambda: _refused(ask, place, [wrong], 400))


def _row(check: Callable[[], str | None]) -> str:
    try:
        return check() or "pass"
    except Exception as error:
        return f"FAIL: {type(error).__name__}: {str(error)[:300]}"


def _path(ask: Ask, path: str, method: str, behind: bool) -> str | None:
    if path not in CALLS:
        return ELSEWHERE
    real = path.replace("{name}", NAME).replace("{version}", VERSION)
    body = {"id": "id-7", "inputs": [tensor("FP64", VALUES["FP64"])]} if method == "post" else None
    answer = ask(method.upper(), real, body)
    assert answer.status == 200, answer.body
    if behind and "/models/" not in path:
        # Answered by the gateway itself: no revision did.
        document = answer.json()
        assert document.get("live", document.get("ready", document.get("name"))), document
        return None
    conforms(answer, path, method)
    return None


def _infer(ask: Ask, datatypes: list[str], outputs: list[str] | None = None) -> None:
    document: dict[str, Any] = {
        "id": "id-7", "inputs": [tensor(datatype, VALUES[datatype]) for datatype in datatypes],
    }  # fmt: skip
    if outputs:
        document["outputs"] = [{"name": name} for name in outputs]
    found = conforms(ask("POST", f"/v2/models/{NAME}/infer", document)).json()
    assert (found["id"], found["model_name"], found["model_version"]) == ("id-7", NAME, VERSION), found
    wanted = {datatype.lower(): VALUES[datatype] for datatype in datatypes}
    # The order is the signature's.
    assert {output["name"] for output in found["outputs"]} == set(outputs or wanted)
    for output in found["outputs"]:
        assert output["shape"] == [2]
        assert output["data"] == wanted[output["name"]], output


def _refused(ask: Ask, path: str, inputs: list[dict[str, Any]], status: int) -> None:
    answer = ask("POST", path, {"inputs": inputs})
    assert answer.status == status, f"{answer.status}: {answer.body[:200]!r}"
