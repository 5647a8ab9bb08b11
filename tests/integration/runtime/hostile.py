"""Kinds of malformed and hostile requests to a model server, made from a seed: the same seed, the same bytes.

Called by `fuzz`. Here are those in JSON, those that break HTTP, and the mix of all; `hostile_tensors` has binary
tensors and gRPC, `hostile_tables` MLflow's and KServe's tables.
"""

import gzip
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

from tests.integration.runtime import hostile_tables, hostile_tensors
from tests.integration.runtime.case import MAX_BODY, PATH, STRANGE, Case, empty_shape, post, valid


def cases(seed: int, count: int) -> Iterator[Case]:
    """`count` cases; every kind has its share."""
    chance = random.Random(seed)
    kinds = [kind for kind, share in _KINDS for _ in range(share)]
    for _ in range(count):
        yield chance.choice(kinds)(chance)


# --- JSON ------------------------------------------------------------------------------------------------------


def _places(node: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        found.append((node, key))
        _places(value, found)
    return found


def changed_document(chance: random.Random) -> Case:
    """A valid document with one to four of its values dropped, doubled, renamed or replaced."""
    document = valid(chance)
    for _ in range(chance.randint(1, 4)):
        places = _places(document, [])
        if not places:
            break
        node, key = chance.choice(places)
        action = chance.randrange(5)
        if action == 0:
            del node[key]
        elif action == 1:
            node[key] = chance.choice(STRANGE)
        elif action == 2 and isinstance(node, list):
            node.insert(key, node[key])
        elif action == 3 and isinstance(node, dict):
            node[chance.choice(["extra", "name", "shape", "Data", ""])] = node.pop(key)
        else:
            node[key] = [node[key]]
    body = json.dumps(document).encode()
    return Case("changed document", post(body), body)


def changed_bytes(chance: random.Random) -> Case:
    """A valid document's bytes with some flipped, cut out, doubled or cut off."""
    body = bytearray(json.dumps(valid(chance)).encode())
    for _ in range(chance.randint(1, 6)):
        at, width = chance.randrange(len(body)), chance.randint(1, 8)
        action = chance.randrange(5)
        if action == 0:
            body[at] = chance.randrange(256)
        elif action == 1:
            del body[at : at + width]
        elif action == 2:
            body[at:at] = body[at : at + width]
        elif action == 3:
            body[at:at] = chance.choice(
                [b"NaN", b"-Infinity", b"\xff\xfe", b"\\ud800", b"1e999", b"\0", b"//", b"{"]
            )
        else:
            del body[at:]
        body = body or bytearray(b" ")
    return Case("changed bytes", post(bytes(body)), bytes(body))


def nested(chance: random.Random) -> Case:
    """Lists or objects inside each other, a few hundred to a hundred thousand deep, where data or parameters are."""
    depth = chance.choice([200, 1024, 5000, 50_000, 100_000])
    opening, closing = chance.choice([(b"[", b"]"), (b'{"a":', b"}")])
    deep = opening * (depth // len(opening)) + chance.choice([b"1", b""])
    if chance.random() < 0.7:
        deep += closing * (depth // len(opening))
    places = [
        b'{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP64","data":%b}]}',
        b'{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP64","data":[1,2,3],"parameters":%b}]}',
        b'{"inputs":%b}',
        b"%b",
    ]
    return Case("nested", post(body := chance.choice(places) % deep), body, refused=True)


def shapes(chance: random.Random) -> Case:
    """Shapes that say something else than the data: overflowing products, zeros, negative and fractional sizes."""
    sizes: list[Any] = [0, 1, 2, 3, 7, 2**16, 2**31 - 1, 2**31, 2**32, 2**63, -1, -3, 1.0, "3", None, [3]]
    document = valid(chance)
    tensor = chance.choice(document["inputs"])
    tensor["shape"] = [chance.choice(sizes) for _ in range(chance.choice([0, 1, 2, 3, 17, 40]))]
    return Case("shapes", post(body := json.dumps(document).encode()), body)


def empty(chance: random.Random) -> Case:
    """Tensors without elements whose shapes say that they would be huge, but for a zero."""
    document = valid(chance)
    tensor = chance.choice(document["inputs"])
    tensor["shape"] = empty_shape(chance)
    tensor["data"] = []
    return Case("empty", post(body := json.dumps(document).encode()), body, refused=True)


# --- HTTP ------------------------------------------------------------------------------------------------------


def lengths(chance: random.Random) -> Case:
    """Content-Length and chunks that are not what is sent."""
    body = json.dumps(valid(chance)).encode()
    right = len(body)
    wrong = [
        "-1",
        "x",
        "",
        "1e3",
        "0x10",
        str(2**63),
        str(2**64),
        f"{right}, {right + 1}",
        f" {right}x",
        "+5",
        "99999999",
    ]
    pick = chance.randrange(5)
    if pick == 0:
        return Case("lengths", post(body, content_length=chance.choice(wrong)), ends=True)
    if pick == 1:
        return Case(
            "lengths",
            post(body, content_length=str(right + chance.choice([1, 50, 4000]))),
            refused=True,
            ends=True,
        )
    if pick == 2:
        return Case(
            "lengths", post(body, content_length=str(chance.randrange(right))), refused=True, ends=True
        )
    chunk = chance.choice(
        [b"5\r\nabc", b"zz\r\n", b"-1\r\n\r\n", b"ffffffffffffffff1\r\nx", b"3\r\nabcX\r\n0\r\n\r\n", b"\r\n"]
    )
    head = f"POST {PATH} HTTP/1.1\r\nhost: replica\r\ntransfer-encoding: chunked\r\n"
    if pick == 3:
        head += f"content-length: {right}\r\n"
    return Case("lengths", head.encode() + b"\r\n" + chunk, refused=True, ends=True)


def content_types(chance: random.Random) -> Case:
    """Bodies that say that they are something else, or are."""
    body = json.dumps(valid(chance)).encode()
    pick = chance.randrange(4)
    if pick == 0:
        return Case(
            "content types", post(gzip.compress(body, mtime=0), content_encoding="gzip"), refused=True
        )
    if pick == 1:
        return Case("content types", post(gzip.compress(body, mtime=0)), refused=True)
    if pick == 2:
        form = b'--b\r\ncontent-disposition: form-data; name="f"\r\n\r\n1\r\n--b--\r\n'
        return Case("content types", post(form, content_type="multipart/form-data; boundary=b"), refused=True)
    wrong = [
        "text/plain",
        "application/x-protobuf",
        "application/octet-stream",
        "",
        "application/json; charset=utf-16",
    ]
    return Case("content types", post(body, content_type=chance.choice(wrong)))


def places(chance: random.Random) -> Case:
    """Paths and methods that are not there, and other protocols' paths with bodies that do not belong there."""
    body = json.dumps(valid(chance)).encode()
    known = [
        "/v2",
        "/v2/health/ready",
        PATH,
        "/v2/models/churn",
        "/metrics",
        "/invocations",
        "/v1/models/churn:predict",
    ]
    strange = [
        "/", "//", "/v2/models//infer", "/v2/models/%00/infer", "/v2/models/../../etc/passwd",
        "/v2/models/churn%2Finfer", "/v2/models/churn/versions/9/infer", "/v2/models/%ff/infer", "/" + "a" * 3000,
        "/v2/models/churn/infer?x=%zz", "/v1/models/other:predict", "/v1/models/churn:explain", "*", "http://elsewhere/v2",
    ]  # fmt: skip
    method = chance.choice(["GET", "PUT", "DELETE", "OPTIONS", "TRACE", "HEAD", "PATCH", "POST", "POST"])
    path = chance.choice(known + strange)
    return Case("places", post(body, path).replace(b"POST", method.encode(), 1))


def garbage(chance: random.Random) -> Case:
    """What is not HTTP/1.1 at all, or hardly."""
    noise = chance.randbytes(chance.randint(1, 2000))
    made = [
        noise,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + noise,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + noise,
        b"GET /v2 HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * chance.choice([10, 1000, 20000]) + b"\r\n",
        b"GET /v2 HTTP/1.1\r\nx: " + b"y" * chance.choice([10_000, 70_000, 300_000]) + b"\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /v2 HTTP/9.9\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nho\0st: x\r\n\r\n",
        b"GET\r\n\r\n",
        b"\r\n" * 500,
        b"POST " + PATH.encode() + b" HTTP/1.1\r\nhost: x\r\ncontent-le",
        b"GET /v2 HTTP/1.1\nhost: x\n\n",
        b"GET /v2 HTTP/1.1\r\nhost : x\r\n\r\n",
    ]  # fmt: skip
    return Case("garbage", chance.choice(made), ends=True)


def large(chance: random.Random) -> Case:
    """Bodies over the limit, announced or not."""
    body = b'{"inputs":[' + b" " * (MAX_BODY + chance.choice([0, 1, 100_000])) + b"]}"
    if chance.random() < 0.5:
        return Case("large", post(body), refused=True)
    head = f"POST {PATH} HTTP/1.1\r\nhost: replica\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    return Case("large", head + b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n", refused=True)


_KINDS: list[tuple[Callable[[random.Random], Case], int]] = [
    (changed_document, 12), (changed_bytes, 10), (nested, 3), (shapes, 6), (empty, 3), (lengths, 6),
    (content_types, 4), (places, 6), (garbage, 5), (large, 1),
    (hostile_tensors.binary, 8), (hostile_tensors.calls, 8), (hostile_tensors.changed_messages, 6),
    (hostile_tables.documents, 8), (hostile_tables.changed_tables, 5), (hostile_tables.csv, 5),
]  # fmt: skip
