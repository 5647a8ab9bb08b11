"""What a client script says of each call: JSON lines. Runs in the client's own environment, without Podium.

Called by the client scripts. A check that raises is a row with the reason; `NotOffered` says that the client has no
such call, which is not the server's failure.
"""

import json
import traceback


class NotOffered(Exception):
    """The client cannot ask for this."""


def check(transport, call, function):
    """Run one check and print its row."""
    try:
        function()
        result = "pass"
    except NotOffered as reason:
        result = f"not offered by the client: {reason}"
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[1:2]
        result = (
            f"FAIL: {type(error).__name__}: {str(error)[:300]} (line {where[0].lineno if where else '?'})"
        )
    print(json.dumps([transport, call, result]), flush=True)


def same(found, wanted):
    """Raise AssertionError where two values differ."""
    assert found == wanted, f"expected {wanted!r}, got {found!r}"
