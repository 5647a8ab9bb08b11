"""Sources of models that several files of tests serve."""

TYPED = """
import numpy as np
class Model:
    signature = {"inputs": [{"name": "n", "datatype": "INT64", "shape": [-1]},
                            {"name": "s", "datatype": "BYTES", "shape": [-1]},
                            {"name": "b", "datatype": "BOOL", "shape": [-1], "optional": True}],
                 "outputs": [{"name": "twice", "datatype": "INT64", "shape": [-1]},
                             {"name": "text", "datatype": "BYTES", "shape": [-1]},
                             {"name": "half", "datatype": "BF16", "shape": [-1]}]}
    def predict(self, inputs):
        n = inputs["n"]
        return {"twice": n * 2, "text": inputs["s"], "half": (n / 2).astype(np.float32)}
"""
ANYTHING = """
class Model:
    def predict(self, inputs):
        if "fail" in inputs:
            raise ValueError("no /secret/place/here, please")
        return inputs
"""
