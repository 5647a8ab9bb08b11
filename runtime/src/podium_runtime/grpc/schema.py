"""The messages of `inference.GRPCInferenceService` as tables for `wire`: field numbers, names, kinds.

Called by `skin`, `requests` and `contents`. Source of the numbers: the Open Inference Protocol's gRPC specification;
`properties` of the model's metadata is the REST form's and has no number there.
"""

from podium_runtime.grpc.wire import Field, Message
from podium_runtime.messages import MAX_TENSORS
from podium_runtime.tensors import MAX_DIMENSIONS

_MAX_PARAMETERS = 256
_SHAPE = Field("shape", "varints", most=10 * MAX_DIMENSIONS)

PARAMETER = Message(
    {
        1: Field("bool_param", "bool"),
        2: Field("int64_param", "int64"),
        3: Field("string_param", "string"),
        4: Field("double_param", "double"),
        5: Field("uint64_param", "uint64"),
    }
)
_PARAMETERS = Field("parameters", "map", message=PARAMETER, most=_MAX_PARAMETERS)

CONTENTS = Message(
    {
        1: Field("bool_contents", "varints"),
        2: Field("int_contents", "varints"),
        3: Field("int64_contents", "varints"),
        4: Field("uint_contents", "varints"),
        5: Field("uint64_contents", "varints"),
        6: Field("fp32_contents", "fixed", width=4),
        7: Field("fp64_contents", "fixed", width=8),
        8: Field("bytes_contents", "bytes", repeated=True),
    }
)

_TENSOR = Message(
    {
        1: Field("name", "string"),
        2: Field("datatype", "string"),
        3: _SHAPE,
        4: _PARAMETERS,
        5: Field("contents", "message", message=CONTENTS),
    }
)
"""An input and an output tensor have the same fields."""

NOTHING = Message({})
"""ServerLiveRequest, ServerReadyRequest and ServerMetadataRequest have no fields."""
LIVE = Message({1: Field("live", "bool")})
READY = Message({1: Field("ready", "bool")})
"""ServerReadyResponse and ModelReadyResponse."""
MODEL = Message({1: Field("name", "string"), 2: Field("version", "string")})
"""ModelReadyRequest and ModelMetadataRequest."""

SERVER_METADATA = Message(
    {
        1: Field("name", "string"),
        2: Field("version", "string"),
        3: Field("extensions", "string", repeated=True),
    }
)

_TENSOR_METADATA = Message({1: Field("name", "string"), 2: Field("datatype", "string"), 3: _SHAPE})
MODEL_METADATA = Message(
    {
        1: Field("name", "string"),
        2: Field("versions", "string", repeated=True),
        3: Field("platform", "string"),
        4: Field("inputs", "message", repeated=True, message=_TENSOR_METADATA),
        5: Field("outputs", "message", repeated=True, message=_TENSOR_METADATA),
    }
)

_WANTED = Message({1: Field("name", "string"), 2: _PARAMETERS})
INFER_REQUEST = Message(
    {
        1: Field("model_name", "string"),
        2: Field("model_version", "string"),
        3: Field("id", "string"),
        4: _PARAMETERS,
        5: Field("inputs", "message", repeated=True, message=_TENSOR, most=MAX_TENSORS),
        6: Field("outputs", "message", repeated=True, message=_WANTED, most=MAX_TENSORS),
        7: Field("raw_input_contents", "bytes", repeated=True, most=MAX_TENSORS),
    }
)
INFER_RESPONSE = Message(
    {
        1: Field("model_name", "string"),
        2: Field("model_version", "string"),
        3: Field("id", "string"),
        4: _PARAMETERS,
        5: Field("outputs", "message", repeated=True, message=_TENSOR),
        6: Field("raw_output_contents", "bytes", repeated=True),
    }
)
