"""Each flavor: pushed, recognised, loaded, and its predictions compared with the framework's own."""

import numpy as np
import pytest

from podium_runtime.probing import examine
from podium_runtime.signature import InputCheck
from tests.flavors.cases import CASES


def deviation(got, wanted):
    """The largest difference between two arrays; texts differ by 0 or infinity."""
    wanted = np.asarray(wanted)
    assert got.shape == wanted.shape
    if wanted.dtype.kind in "OU":
        return 0.0 if got.tolist() == wanted.tolist() else np.inf
    assert got.dtype == wanted.dtype
    return float(np.abs(got.astype(np.float64) - wanted.astype(np.float64)).max())


@pytest.mark.parametrize("name", CASES)
def test_predictions_are_the_framework_s_own(name, made, loaded):
    case = made(name)
    model = loaded(case)
    signature = model.infer_signature()
    inputs = case.inputs
    if signature is not None:
        inputs, _ = InputCheck(signature, model.columns).check_inputs(dict(inputs))
    outputs = model.predict(inputs, None)
    assert outputs.keys() == case.expected.keys()
    for output, expected in case.expected.items():
        assert deviation(outputs[output], expected) <= case.tolerance, output
    if signature is not None and signature.outputs:
        shown = {spec.name: spec.datatype for spec in signature.outputs}
        assert shown.keys() == outputs.keys()
    assert all(model.framework().values())


@pytest.mark.parametrize("name", CASES)
def test_rows_alone_give_what_rows_together_give(name, made, loaded):
    """What lets requests share a call: a row's answer does not depend on its neighbours."""
    case = made(name)
    model = loaded(case)
    signature = model.infer_signature()
    if model.rows_independent is False or signature is None or not signature.works_by_row:
        pytest.skip("its requests never share a call")
    if model.rows_independent is None:
        # What nobody declared is found out at warm-up, from a declared example where there is one.
        example, _ = InputCheck(signature, model.columns).check_inputs(dict(case.inputs))
        finding = examine(model, signature, example)
        assert finding.independent, finding.reason
    check = InputCheck(signature, model.columns)
    for row in (0, 2):
        inputs, rows = check.check_inputs({key: array[row : row + 1] for key, array in case.inputs.items()})
        assert rows == 1
        for output, array in model.predict(inputs, None).items():
            # Kernels for one row and for many may add up in another order.
            tolerance = max(case.tolerance, 2e-7)
            assert deviation(array, np.asarray(case.expected[output])[row : row + 1]) <= tolerance
