"""Times `model.predict` of one row, with no server around it: `python alone.py sklearn|onnx FILE SECONDS [CORE]`.

Run by `load` with the interpreter of each server, so that the libraries and their versions are that server's. Prints
the median in milliseconds. Needs only what the model needs.
"""

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np


def predictor(kind: str, path: str) -> Callable[[], Any]:
    """What is timed: one row of 30 features."""
    if kind == "onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        single = np.ones((1, 30), dtype=np.float32)
        return lambda: session.run(["label"], {"input": single})
    import joblib

    model = joblib.load(path)
    double = np.ones((1, 30))
    return lambda: model.predict(double)


def main() -> None:
    """Entry point."""
    kind, path, seconds, *core = sys.argv[1:]
    if core:
        os.sched_setaffinity(0, {int(core[0])})
    predict = predictor(kind, path)
    for _ in range(50):
        predict()
    taken = []
    end = time.perf_counter() + float(seconds)
    while (start := time.perf_counter()) < end:
        predict()
        taken.append(time.perf_counter() - start)
    print(1000 * sorted(taken)[len(taken) // 2])


if __name__ == "__main__":
    main()
