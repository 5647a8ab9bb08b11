"""The wire codec against protobuf's own library, and against bytes that mean harm."""

import contextlib
import time

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given, settings
from hypothesis import strategies as st

from podium_runtime.errors import InvalidInput
from podium_runtime.grpc import schema, wire
from podium_runtime.grpc.contents import TYPED, decode_contents, encode_contents
from podium_runtime.grpc.requests import encode_response, infer_request, sent_raw
from podium_runtime.messages import InferResponse
from podium_runtime.tensors import DATATYPES

MOST = 2**24
HUGE = [2**31 - 1] * 3
# Type numbers of google.protobuf.FieldDescriptorProto.
TYPES = {
    "double": 1,
    "float": 2,
    "int64": 3,
    "uint64": 4,
    "int32": 5,
    "bool": 8,
    "string": 9,
    "bytes": 12,
    "uint32": 13,
}
NUMBERS = {
    "bool_contents": "bool", "int_contents": "int32", "int64_contents": "int64", "uint_contents": "uint32",
    "uint64_contents": "uint64", "fp32_contents": "float", "fp64_contents": "double", "shape": "int64",
}  # fmt: skip


class Library:
    """Classes of protobuf's library for our tables, in a pool of their own."""

    def __init__(self, *roots: wire.Message) -> None:
        self.file = descriptor_pb2.FileDescriptorProto(name="t.proto", package="t", syntax="proto3")
        self.names: dict[int, str] = {}
        self.kept = roots
        names = [self.describe(root) for root in roots]
        pool = descriptor_pool.DescriptorPool()
        pool.Add(self.file)
        self.classes = {
            id(root): message_factory.GetMessageClass(pool.FindMessageTypeByName(f"t.{name}"))
            for root, name in zip(roots, names, strict=True)
        }

    def describe(self, message: wire.Message) -> str:
        if id(message) in self.names:
            return self.names[id(message)]
        name = self.names[id(message)] = f"M{len(self.names)}"
        made = descriptor_pb2.DescriptorProto(name=name)
        for number, field in message.fields.items():
            one = made.field.add(name=field.name, number=number, label=3 if field.repeated else 1)
            if field.kind in ("varints", "fixed"):
                one.type, one.label = TYPES[NUMBERS[field.name]], 3
            elif field.kind == "message":
                one.type, one.type_name = 11, f".t.{self.describe(field.message)}"
            elif field.kind == "map":
                entry = made.nested_type.add(name=f"{field.name.title()}Entry")
                entry.options.map_entry = True
                entry.field.add(name="key", number=1, label=1, type=9)
                entry.field.add(
                    name="value", number=2, label=1, type=11, type_name=f".t.{self.describe(field.message)}"
                )
                one.type, one.type_name, one.label = 11, f".t.{name}.{entry.name}", 3
            else:
                one.type = TYPES[field.kind]
        self.file.message_type.append(made)
        return name

    def __getitem__(self, message: wire.Message):
        return self.classes[id(message)]


LIBRARY = Library(
    schema.INFER_REQUEST, schema.INFER_RESPONSE, schema.MODEL_METADATA, schema.MODEL, schema.READY
)

ARRAYS = {
    "BOOL": np.array([[True, False, True]]),
    **{
        name: np.array([[np.iinfo(kind.dtype).min, 0, 1, 127, np.iinfo(kind.dtype).max]], dtype=kind.dtype)
        for name, kind in DATATYPES.items()
        if kind.dtype.kind in "iu"
    },
    **{name: np.array([[1.5, -2.0]], dtype=DATATYPES[name].dtype) for name in ("FP16", "BF16")},
    "FP32": np.array([[1.5, -0.0, np.inf, 3e-45]], dtype=np.float32),
    "FP64": np.array([[1.5, -0.0, -np.inf, 5e-324, 0.1]]),
    "BYTES": np.array([["", "a", "grüße"]], dtype=object),
}


def listed(array):
    return [value.encode() if isinstance(value, str) else value for value in array.ravel().tolist()]


@pytest.mark.parametrize("datatype", TYPED)
def test_typed_contents_are_as_protobuf_writes_them(datatype):
    array = ARRAYS[datatype]
    made = LIBRARY[schema.INFER_REQUEST](model_name="m", model_version="3", id="x")
    made.parameters["a"].int64_param = -5
    made.parameters["b"].string_param = "s"
    tensor = made.inputs.add(name="t", datatype=datatype, shape=array.shape)
    getattr(tensor.contents, TYPED[datatype]).extend(listed(array))
    made.outputs.add(name="o").parameters["d"].double_param = 0.5
    fields = wire.decode(schema.INFER_REQUEST, made.SerializeToString())
    request = infer_request(fields, MOST)
    assert (fields["model_name"], fields["model_version"], request.id) == ("m", "3", "x")
    assert request.inputs["t"].dtype == array.dtype
    assert np.array_equal(request.inputs["t"], array)
    assert request.outputs == ("o",)
    assert (request.parameters, request.output_parameters) == ({"a": -5, "b": "s"}, {"o": {"d": 0.5}})
    assert not sent_raw(fields)
    # And the way back.
    answer = LIBRARY[schema.INFER_RESPONSE].FromString(
        encode_response(InferResponse("m", "3", {"t": array}, "x"), raw=False)
    )
    [output] = answer.outputs
    assert (answer.model_name, answer.model_version, answer.id) == ("m", "3", "x")
    assert (output.name, output.datatype, list(output.shape)) == ("t", datatype, list(array.shape))
    assert list(getattr(output.contents, TYPED[datatype])) == listed(array)
    assert not answer.raw_output_contents


@pytest.mark.parametrize("datatype", DATATYPES)
def test_raw_contents_are_as_protobuf_writes_them(datatype):
    array = ARRAYS[datatype]
    declared = {"t": "BF16"} if datatype == "BF16" else None
    answer = LIBRARY[schema.INFER_RESPONSE].FromString(
        encode_response(InferResponse("m", "3", {"t": array}, declared=declared), raw=True)
    )
    assert answer.outputs[0].datatype == datatype
    made = LIBRARY[schema.INFER_REQUEST](raw_input_contents=answer.raw_output_contents)
    made.inputs.add(name="t", datatype=datatype, shape=array.shape)
    fields = wire.decode(schema.INFER_REQUEST, made.SerializeToString())
    assert sent_raw(fields)
    assert np.array_equal(infer_request(fields, MOST).inputs["t"], array)
    # A typed request for an output that has no typed field is answered raw.
    typed = LIBRARY[schema.INFER_RESPONSE].FromString(
        encode_response(InferResponse("m", "3", {"t": array}, declared=declared), raw=False)
    )
    assert bool(typed.raw_output_contents) == (datatype in ("FP16", "BF16"))


def test_metadata_and_flags_are_as_protobuf_reads_them():
    tensors = [{"name": "a", "datatype": "FP64", "shape": [-1, 30], "optional": True}]
    values = {
        "name": "m",
        "versions": ["1", "2"],
        "platform": "p",
        "inputs": tensors,
        "outputs": [],
        "properties": {},
    }
    read = LIBRARY[schema.MODEL_METADATA].FromString(wire.encode(schema.MODEL_METADATA, values))
    assert (read.name, list(read.versions), read.platform) == ("m", ["1", "2"], "p")
    assert (read.inputs[0].name, list(read.inputs[0].shape), len(read.outputs)) == ("a", [-1, 30], 0)
    # A false flag is written too: an answer without a body has no place for its trailers.
    for flag in (True, False):
        encoded = wire.encode(schema.READY, {"ready": flag})
        assert encoded
        assert LIBRARY[schema.READY].FromString(encoded).ready == flag


@given(
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=300),
    st.lists(st.integers(0, 2**64 - 1), max_size=300),
    st.booleans(),
)
def test_numbers_survive_packed_and_one_by_one(signed, unsigned, unpacked):
    contents = LIBRARY[schema.INFER_REQUEST]().inputs.add().contents
    contents.int64_contents.extend(signed)
    contents.uint64_contents.extend(unsigned)
    data = contents.SerializeToString()
    if unpacked:
        data = b"".join(b"\x18" + wire.encode_varint(value) for value in signed)
        data += b"".join(b"\x28" + wire.encode_varint(value) for value in unsigned)
    fields = wire.decode(schema.CONTENTS, data)
    for name, values, datatype in (
        ("int64_contents", signed, "INT64"),
        ("uint64_contents", unsigned, "UINT64"),
    ):
        read = decode_contents({name: fields.get(name, [])}, DATATYPES[datatype], (len(values),), "t")
        assert read.tolist() == values
        again = encode_contents(read)[1][name]
        assert bytes(again) == b"".join(map(wire.encode_varint, values))


def test_numbers_over_several_chunks():
    values = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 50_000) >> np.arange(50_000) % 64
    packed = encode_contents(values)[1]["int64_contents"]
    assert len(packed) > 3 * 2**16
    assert np.array_equal(
        decode_contents({"int64_contents": [packed]}, DATATYPES["INT64"], (50_000,), "t"), values
    )


def test_parts_that_come_in_pieces_are_one():
    """Protobuf lets a message come as several that are put one behind the other."""
    whole = LIBRARY[schema.INFER_REQUEST](model_name="first")
    tensor = whole.inputs.add(name="t", datatype="INT32", shape=[2, 3])
    tensor.contents.int_contents.extend([1, 2])
    second = type(tensor)()
    second.contents.int_contents.extend([3, 4, 5, 6])
    data = tensor.SerializeToString() + second.SerializeToString()
    body = whole.SerializeToString().replace(
        b"\x2a" + bytes([len(tensor.SerializeToString())]) + tensor.SerializeToString(),
        b"\x2a" + bytes([len(data)]) + data,
    )
    body += b"\x0a\x04last"
    fields = wire.decode(schema.INFER_REQUEST, body)
    assert fields["model_name"] == "last"
    assert infer_request(fields, MOST).inputs["t"].tolist() == [[1, 2, 3], [4, 5, 6]]


def test_unknown_fields_are_skipped():
    unknown = b"".join(
        (
            wire.encode_varint(99 << 3 | 0) + wire.encode_varint(2**63),
            wire.encode_varint(98 << 3 | 1) + b"12345678",
            wire.encode_varint(97 << 3 | 2) + b"\x03abc",
            wire.encode_varint(96 << 3 | 5) + b"1234",
        )
    )
    body = unknown + b"\x0a\x01m" + unknown + b"\x12\x011"
    assert wire.decode(schema.MODEL, body) == {"name": "m", "version": "1"}


def tensor_body(**changes) -> bytes:
    values = {
        "name": "t",
        "datatype": "INT32",
        "shape": [2],
        "contents": {"int_contents": b"\x01\x02"},
    } | changes
    return wire.encode(schema.INFER_REQUEST, {"model_name": "m", "inputs": [values]})


def numbers(packed: bytes, datatype: str = "INT32") -> bytes:
    return tensor_body(datatype=datatype, contents={"int_contents": packed})


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"\x0a", "model_name"),
        (b"\x0a\x05ab", "model_name"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "model_name"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7fabc", "model_name"),
        (b"\x0a\x01\xff", "model_name"),
        (b"\x08\x01", "model_name"),
        (b"\x00\x01", ""),
        (b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80", ""),
        (b"\xff\xff\xff\xff\x7f\x01", ""),
        (wire.encode_varint(99 << 3 | 3), "field 99"),
        (wire.encode_varint(99 << 3 | 7), "field 99"),
        (wire.encode_varint(99 << 3 | 5) + b"123", "field 99"),
        (b"", "inputs"),
        (tensor_body(name=""), "inputs[0].name"),
        (tensor_body(name="n" * 600), "inputs[0].name"),
        (tensor_body(datatype="FLOAT"), "inputs[0].datatype"),
        (tensor_body(datatype=""), "inputs[0].datatype"),
        (tensor_body(shape=[-1]), "inputs[0].shape[0]"),
        (tensor_body(shape=[2**62, 2**62]), "inputs[0].shape[0]"),
        (tensor_body(shape=[1] * 17), "inputs[0].shape"),
        (tensor_body(shape=[2**31 - 1] * 16), "inputs[0].shape"),
        (tensor_body(shape=[2**40] * 100), "inputs[0].shape"),
        (tensor_body(shape=[MOST + 1]), "inputs[0].shape"),
        (tensor_body(datatype="INT64", shape=[0, *HUGE], contents={"int64_contents": b""}), "inputs[0].shape"),
        (tensor_body(datatype="BYTES", shape=[*HUGE, 0], contents={}), "inputs[0].shape"),
        (tensor_body(datatype="FP32", shape=[0, *HUGE], contents=None) + b"\x3a\x00", "inputs[0].shape"),
        (tensor_body(datatype="BYTES", shape=[0, *HUGE], contents=None) + b"\x3a\x00", "inputs[0].shape"),
        (tensor_body(shape=b"\x80"), "inputs[0].shape[0]"),
        (tensor_body(shape=[3]), "inputs[0].contents.int_contents"),
        (tensor_body(contents={}), "inputs[0].contents.int_contents"),
        (numbers(b"\x01\x82"), "inputs[0].contents.int_contents[1]"),
        (numbers(b"\x01" + b"\xff" * 11 + b"\x01"), "inputs[0].contents.int_contents[1]"),
        (tensor_body(contents={"int64_contents": b"\x01\x02"}), "inputs[0].contents"),
        (numbers(b"\x01" + wire.encode_varint(2**31)), "inputs[0].contents.int_contents[1]"),
        (numbers(b"\x01" + wire.encode_varint(-129), "INT8"), "inputs[0].contents.int_contents[1]"),
        (tensor_body(datatype="FP32", contents={"fp32_contents": b"12345678"[:6]}), "inputs[0].contents.fp32_contents"),
        (tensor_body(datatype="FP16", contents={}), "inputs[0].contents"),
        (tensor_body() + tensor_body(), "inputs[1].name"),
        (tensor_body() + b"\x3a\x041234" + b"\x3a\x041234", "raw_input_contents"),
        (tensor_body() + b"\x3a\x081234abcd", "inputs[0].contents"),
        (tensor_body(contents=None) + b"\x3a\x041234", "raw_input_contents[0]"),
        (tensor_body() + b"\x32\x00", "outputs[0].name"),
        (
            tensor_body(parameters={"shared_memory_region": {"string_param": "x"}}),
            "inputs[0].parameters.shared_memory_region",
        ),
    ],
)  # fmt: skip
def test_a_refusal_names_the_field(body, field):
    with pytest.raises(InvalidInput) as caught:
        infer_request(wire.decode(schema.INFER_REQUEST, body), MOST)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"\xf8\x06\x01" * 300_000, ""),
        (b"\x3a\x00" * 5000, "raw_input_contents"),
        (b"\x2a\x00" * 5000, "inputs"),
        (b"\x22\x05\x0a\x03%b" * 2, "parameters"),
    ],
)
def test_too_many_of_anything(body, field):
    if b"%b" in body:
        body = b"".join(b"\x22\x05\x0a\x03" + b"%03d" % index for index in range(300))
    with pytest.raises(InvalidInput) as caught:
        wire.decode(schema.INFER_REQUEST, body)
    assert caught.value.field == field
    assert "at most" in caught.value.message


def test_pieces_of_numbers_cost_no_more_than_other_fields():
    """Counting all pieces for each one that comes would take minutes for these 400 KB."""
    shape = b"\x1a\x00" * 100_000 + b"\x1a\x01\x02" + b"\x1a\x00" * 100_000
    tensor = b"\x0a\x01t\x12\x05INT32" + shape + b"\x2a\x04\x12\x02\x01\x02"
    started = time.thread_time()
    fields = wire.decode(schema.INFER_REQUEST, b"\x2a" + wire.encode_varint(len(tensor)) + tensor)
    assert time.thread_time() - started < 10
    assert infer_request(fields, MOST).inputs["t"].tolist() == [1, 2]
    one_by_one = b"\x18\x01" * 16
    tensor = b"\x0a\x01t\x12\x05INT32" + one_by_one + b"\x1a\x00" + b"\x2a\x03\x12\x01\x07"
    fields = wire.decode(schema.INFER_REQUEST, b"\x2a" + wire.encode_varint(len(tensor)) + tensor)
    assert infer_request(fields, MOST).inputs["t"].shape == (1,) * 16


def read_or_refuse(body: bytes) -> None:
    for message in (schema.INFER_REQUEST, schema.MODEL, schema.NOTHING):
        with contextlib.suppress(InvalidInput):
            infer_request(wire.decode(message, body), MOST)


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body):
    read_or_refuse(body)


@settings(max_examples=300)
@given(st.data())
def test_a_good_request_with_one_wrong_byte_is_read_or_refused(data):
    body = bytearray(tensor_body(parameters={"a": {"bool_param": True}}) + b"\x32\x03\x0a\x01o\x1a\x02id")
    place = data.draw(st.integers(0, len(body) - 1))
    body[place] = data.draw(st.integers(0, 255))
    read_or_refuse(bytes(body))
    read_or_refuse(bytes(body[:place]))


def test_signs_and_fractions_of_parameters():
    given_ones = {"i": {"int64_param": -1}, "u": {"uint64_param": 2**64 - 1}, "d": {"double_param": 0.1}}
    body = wire.encode(schema.INFER_REQUEST, {"parameters": given_ones})
    assert wire.decode(schema.INFER_REQUEST, body) == {"parameters": given_ones}
    read = LIBRARY[schema.INFER_REQUEST].FromString(body).parameters
    assert (read["i"].int64_param, read["u"].uint64_param, read["d"].double_param) == (-1, 2**64 - 1, 0.1)
