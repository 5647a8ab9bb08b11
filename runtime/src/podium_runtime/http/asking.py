"""The one way from a skin to the model and back: a request is submitted, and its exchange gets one answer for sure.

Used by `v2`, `mlflow` and `kserve_v1`; `streams` and `grpc_bridge` have their own, since their answers are not one
body of HTTP. What a skin writes is made of what the model returned, and that may be anything: objects that raise when
they are printed, names that are no UTF-8. An answer that cannot be written is the model's failure.
"""

import functools
from collections.abc import Callable

from podium_runtime import cascading
from podium_runtime.core import Dataplane
from podium_runtime.errors import ModelFailed, RequestError
from podium_runtime.http.exchange import Exchange
from podium_runtime.jobs import Outcome, Outputs
from podium_runtime.messages import InferRequest

Write = Callable[[Outputs], None]
"""Writes the answer for a model's outputs. May raise anything, as long as nothing is written then."""
Refuse = Callable[[Exchange, RequestError], None]
"""Writes the answer for an error in a skin's own form."""


def ask(
    core: Dataplane, exchange: Exchange, request: InferRequest, write: Write, refuse: Refuse = Exchange.refuse
) -> None:
    """Have the model answer a request: `write` gets its outputs, `refuse` why there are none.

    Raises what `Dataplane.submit` raises.
    """
    asked = cascading.read(exchange.headers, core.served.name)
    also = None
    if asked is not None:
        also = asked.output
        write = functools.partial(_unless_unsure, exchange, request, write, asked)
    answer = functools.partial(_answer, exchange, request, write, refuse)
    job = core.submit(request, answer, exchange.timeout(), also)
    exchange.on_gone = functools.partial(core.abandon, job)


def _unless_unsure(
    exchange: Exchange, request: InferRequest, write: Write, asked: cascading.Asked, outputs: Outputs
) -> None:
    """Write the answer without what was computed for the gateway only, and mark it where the model is not sure."""
    exchange.tell(*cascading.line(asked, outputs))
    if request.outputs and asked.output not in request.outputs:
        outputs = {name: array for name, array in outputs.items() if name != asked.output}
    write(outputs)


def _answer(
    exchange: Exchange, request: InferRequest, write: Write, refuse: Refuse, outcome: Outcome
) -> None:
    try:
        if not isinstance(outcome, RequestError):
            exchange.see(request, outcome)
        error = outcome if isinstance(outcome, RequestError) else written(write, outcome)
        if error is not None:
            refuse(exchange, error)
    except Exception as error:
        exchange.fail(error)


def written(write: Write, outputs: Outputs) -> RequestError | None:
    """Write an answer and return None, or return why that cannot be done."""
    try:
        write(outputs)
    except RequestError as error:
        return error
    except BaseException as error:
        # All of them: the model's own objects are asked for their texts here, and they may raise as they like.
        return ModelFailed(error)
    return None
