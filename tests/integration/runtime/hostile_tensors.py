"""Binary tensors over HTTP and gRPC's messages, right and wrong, with a judgement of their own: what must be refused.

Called by `hostile`. The judgement is made from the protocol's words alone: the header's length, the announced sizes,
the shapes and the bytes that there are. Whether bytes are a message at all is asked of protobuf's own library.
"""

import json
import math
import random
import struct
from dataclasses import dataclass
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from tests.integration.runtime.case import INPUTS, STRANGE, Case, empty_shape, post

_SPECS = {spec["name"]: spec for spec in INPUTS}
_WIDTH = {"FP64": 8, "INT32": 4, "BOOL": 1, "FP16": 2, "UINT64": 8}
_CALL = "/inference.GRPCInferenceService/ModelInfer"


@dataclass
class Sent:
    """One tensor as it is sent."""

    name: str
    datatype: str
    shape: list[Any]
    content: bytes
    told: Any
    """Its announced size in bytes."""


def _tensors(chance: random.Random) -> list[Sent]:
    """Tensors that fit the model's signature, in their raw form."""
    rows = chance.choice([1, 1, 2, 5])
    made = []
    for name, spec in _SPECS.items():
        if spec.get("optional") and chance.random() < 0.5:
            continue
        shape = [rows, *spec["shape"][1:]]
        content = b"".join(_element(chance, spec["datatype"]) for _ in range(math.prod(shape)))
        made.append(Sent(name, spec["datatype"], shape, content, len(content)))
    return made


def _element(chance: random.Random, datatype: str) -> bytes:
    if datatype == "BYTES":
        text = chance.choice([b"", b"a", "é".encode(), b"\xff\xfe", b"x" * 40])
        return struct.pack("<I", len(text)) + text
    if datatype == "BOOL":
        return bytes([chance.randint(0, 1)])
    return chance.randbytes(_WIDTH[datatype])


def _break_one(chance: random.Random, tensors: list[Sent]) -> None:
    """Make something of one tensor wrong, most of the time."""
    tensor = chance.choice(tensors)
    match chance.randrange(11):
        case 0:
            tensor.content = tensor.content[: chance.randrange(len(tensor.content) + 1)]
        case 1:
            tensor.content += bytes(chance.choice([1, 4, 8, 100]))
        case 2 | 8 | 9:
            tensor.shape = empty_shape(chance)
            tensor.content, tensor.told = b"", 0
        case 3:
            tensor.shape = [chance.choice([0, 1, 2, 3, 2**31 - 1, 2**63 - 1, -1]) for _ in tensor.shape]
        case 4:
            tensor.name = chance.choice(["nobody", "", "n", "x"])
        case 5:
            tensor.content = bytes(chance.randrange(2, 256) for _ in tensor.content)
        case 6:
            at = chance.randrange(len(tensor.content) + 1)
            tensor.content = tensor.content[:at] + b"\xff\xff\xff\xff" + tensor.content[at + 4 :]
        case 7:
            tensors.remove(tensor)
        case _:
            return
    if chance.random() < 0.7 and type(tensor.told) is int:
        tensor.told = len(tensor.content)


def fits(datatype: str, shape: list[Any], content: bytes) -> bool:
    """Whether a raw tensor holds what its shape says."""
    count = math.prod(shape)
    if datatype != "BYTES":
        right = len(content) == count * _WIDTH[datatype]
        return right and (datatype != "BOOL" or set(content) <= {0, 1})
    at = 0
    for _ in range(min(count, len(content) + 1)):
        if at + 4 > len(content):
            return False
        at += 4 + int.from_bytes(content[at : at + 4], "little")
    return at == len(content) and count <= len(content)


def suits(tensors: list[tuple[str, str, list[Any]]]) -> bool:
    """Whether names, datatypes and shapes are what the model's signature asks for."""
    names = [name for name, _, _ in tensors]
    if len(set(names)) != len(names) or "n" not in names or not _SPECS.keys() >= set(names):
        return False
    rows = set()
    for name, datatype, shape in tensors:
        spec = _SPECS[name]
        tail = spec["shape"][1:]
        # A column may be sent as [rows, 1].
        columns = shape[1:] == tail or (tail == [] and shape[1:] == [1])
        if datatype != spec["datatype"] or not shape or not columns or shape[0] < 1:
            return False
        rows.add(shape[0])
    return len(rows) == 1


def binary(chance: random.Random) -> Case:
    """Binary tensors that are cut off, too long, announced wrongly or hold what they must not; some are right."""
    tensors = _tensors(chance)
    if chance.random() < 0.7:
        _break_one(chance, tensors)
    if tensors and chance.random() < 0.15:
        chance.choice(tensors).told = chance.choice([-24, 2**63, "24", 24.0, None, True, [24], 0, 1])
    described: list[dict[str, Any]] = [
        {"name": one.name, "datatype": one.datatype, "shape": one.shape, "parameters": {"binary_data_size": one.told}}
        for one in tensors
    ]  # fmt: skip
    content = b"".join(one.content for one in tensors)
    both = bool(tensors) and chance.random() < 0.05
    if both:
        described[0]["data"] = [1]
    if chance.random() < 0.1:
        content = content[: chance.randrange(len(content) + 1)]
    head = json.dumps({"inputs": described}).encode()
    told = chance.choice([str(len(head))] * 12 + ["0", "-1", "1", "99999999", "x", "", str(len(head) - 1)])
    right = told == str(len(head)) and not both and _announced(tensors, content)
    kind = chance.choice(["application/octet-stream", "application/json"])
    sent = post(head + content, inference_header_content_length=told, content_type=kind)
    return Case("binary", sent, refused=not right, accepted=right)


def _announced(tensors: list[Sent], content: bytes) -> bool:
    """Whether `content` is the tensors, one after the other, by their announced sizes, and they suit the model."""
    if not all(type(one.told) is int and one.told >= 0 for one in tensors):
        return False
    if sum(one.told for one in tensors) != len(content):
        return False
    at = 0
    for one in tensors:
        if any(size < 0 for size in one.shape) or not fits(
            one.datatype, one.shape, content[at : at + one.told]
        ):
            return False
        at += one.told
    return suits([(one.name, one.datatype, one.shape) for one in tensors])


# --- gRPC ------------------------------------------------------------------------------------------------------


def _varint(value: int) -> bytes:
    made = bytearray()
    value %= 2**64
    while value >= 128:
        made.append(value % 128 + 128)
        value //= 128
    return bytes(made) + bytes((value,))


def _field(number: int, content: bytes) -> bytes:
    return _varint(number * 8 + 2) + _varint(len(content)) + content


def _message(
    tensors: list[Sent], contents: list[bytes] | None, raw: list[bytes], name: str = "churn"
) -> bytes:
    """A ModelInferRequest. `contents`: InferTensorContents of each tensor."""
    inputs = []
    for at, one in enumerate(tensors):
        shape = b"".join(_varint(size) for size in one.shape)
        made = _field(1, one.name.encode()) + _field(2, one.datatype.encode()) + _field(3, shape)
        inputs.append(_field(5, made + (_field(5, contents[at]) if contents else b"")))
    return b"".join([_field(1, name.encode()), *inputs, *(_field(7, one) for one in raw)])


_TYPED = {"BOOL": 1, "INT32": 2, "UINT64": 5, "FP64": 7}


def _typed(chance: random.Random, one: Sent, count: int) -> bytes:
    """InferTensorContents with `count` elements."""
    if one.datatype == "BYTES":
        return b"".join(_field(8, chance.choice([b"", b"a", b"\xff"])) for _ in range(count))
    if one.datatype == "FP64":
        return _field(7, chance.randbytes(8 * count))
    numbers = {"BOOL": [0, 1], "INT32": [-(2**31), 0, 2**31 - 1], "UINT64": [0, 2**64 - 1]}[one.datatype]
    return _field(_TYPED[one.datatype], b"".join(_varint(chance.choice(numbers)) for _ in range(count)))


def calls(chance: random.Random) -> Case:
    """Messages whose raw or typed tensors are not what their shapes say, or do not suit the model; some are right."""
    tensors = _tensors(chance)
    if chance.random() < 0.6:
        _break_one(chance, tensors)
    known = suits([(one.name, one.datatype, one.shape) for one in tensors])
    if chance.random() < 0.5:
        raw = [one.content for one in tensors]
        if raw and chance.random() < 0.1:
            chance.choice([raw.pop, lambda: raw.append(b"")])()
        right = known and len(raw) == len(tensors) and all(
            fits(one.datatype, one.shape, content) for one, content in zip(tensors, raw, strict=True)
        )  # fmt: skip
        return _call("gRPC raw", _message(tensors, None, raw), right)
    tensors = [one for one in tensors if one.datatype != "FP16"]
    known = suits([(one.name, one.datatype, one.shape) for one in tensors])
    counts = [math.prod(one.shape) if 0 <= math.prod(one.shape) < 50 else 0 for one in tensors]
    if tensors and chance.random() < 0.3:
        counts[chance.randrange(len(counts))] += chance.choice([-1, 1, 7])
    counts = [max(0, count) for count in counts]
    right = known and all(count == math.prod(one.shape) for one, count in zip(tensors, counts, strict=True))
    contents = [_typed(chance, one, count) for one, count in zip(tensors, counts, strict=True)]
    return _call("gRPC typed", _message(tensors, contents, []), right)


def _call(kind: str, message: bytes, right: bool) -> Case:
    sent = post(message, _CALL, content_type="application/x-protobuf")
    return Case(kind, sent, refused=not right, accepted=right)


def changed_messages(chance: random.Random) -> Case:
    """The bytes of a good message with some flipped, cut out, doubled or cut off, or followed by fields of any kind."""
    tensors = [one for one in _tensors(chance) if one.datatype != "FP16"]
    contents = [_typed(chance, one, math.prod(one.shape)) for one in tensors]
    message = bytearray(_message(tensors, contents, []))
    for _ in range(chance.randint(1, 2)):
        at, width = chance.randrange(len(message)), chance.randint(1, 8)
        match chance.randrange(10):
            case 0:
                del message[at : at + width]
            case 1:
                message[at:at] = message[at : at + width]
            case 2:
                message += _varint(chance.choice([1, 5, 7, 9, 2**29 - 1]) * 8 + chance.randrange(8))
                message += chance.randbytes(chance.randrange(12))
            case 3 | 4:
                # Whole fields that no message here has, or one that it has already.
                number = chance.choice([1, 4, 7, 99, 2**29 - 1])
                message += _field(number, chance.choice([b"", b"churn", b"\x0a\x00", bytes(300)]))
            case 5:
                del message[at:]
            case _:
                message[at] = chance.randrange(256)
        message = message or bytearray(b"\x0a")
    content = bytes(message)
    sent = post(
        content, _CALL, content_type=chance.choice(["application/x-protobuf"] * 9 + [str(STRANGE[-1])])
    )
    return Case("gRPC changed", sent, refused=not _is_message(content))


def _is_message(content: bytes) -> bool:
    try:
        _REQUEST.FromString(content)
    except DecodeError:
        return False
    return True


def _request_class() -> Any:
    """ModelInferRequest as far as its tensors go, from the numbers and types of the protocol's specification."""
    file = descriptor_pb2.FileDescriptorProto(name="fuzz.proto", package="fuzz", syntax="proto3")
    one, many = 1, 3
    kinds = {"string": 9, "int64": 3, "int32": 5, "uint32": 13, "uint64": 4, "bool": 8, "float": 2, "double": 1,
             "bytes": 12}  # fmt: skip
    messages: dict[str, list[tuple[int, str, int]]] = {
        "Contents": [
            (number, kind, many)
            for number, kind in enumerate(
                ("bool", "int32", "int64", "uint32", "uint64", "float", "double", "bytes"), start=1
            )
        ],
        "Tensor": [(1, "string", one), (2, "string", one), (3, "int64", many), (5, "Contents", one)],
        "Request": [(1, "string", one), (2, "string", one), (3, "string", one), (5, "Tensor", many),
                    (7, "bytes", many)],
    }  # fmt: skip
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for number, kind, label in fields:
            field = message.field.add(name=f"f{number}", number=number, label=label)
            field.type = kinds.get(kind, 11)
            if kind not in kinds:
                field.type_name = f".fuzz.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("fuzz.Request"))


_REQUEST = _request_class()
