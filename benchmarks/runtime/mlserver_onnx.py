"""An ONNX model for MLServer, which ships no runtime for one: the shortest that uses its own codecs.

Copied into the model's folder by `contestants` and loaded by MLServer in its own environment.
"""

import numpy as np
import onnxruntime
from mlserver import MLModel  # type: ignore[import-not-found, unused-ignore]
from mlserver.codecs import NumpyCodec  # type: ignore[import-not-found, unused-ignore]
from mlserver.types import (  # type: ignore[import-not-found, unused-ignore]
    InferenceRequest,
    InferenceResponse,
)
from mlserver.utils import get_model_uri  # type: ignore[import-not-found, unused-ignore]


class OnnxModel(MLModel):  # type: ignore[misc, unused-ignore]
    """One onnxruntime session on one thread."""

    async def load(self) -> bool:
        """Load `model.onnx`."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        path = await get_model_uri(self._settings)
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer with the outputs that were asked for."""
        rows = np.asarray(NumpyCodec.decode_input(payload.inputs[0]), dtype=np.float32)
        names = [output.name for output in payload.outputs]
        arrays = self._session.run(names, {payload.inputs[0].name: rows})
        outputs = [NumpyCodec.encode_output(name, array) for name, array in zip(names, arrays, strict=True)]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)
