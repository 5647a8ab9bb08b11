"""What every test of the repository gets: a hard limit per test, and an environment with nothing personal in it.

pytest loads it for tests/ and runtime/tests/. Processes that a run leaves behind are found by tools/no_leftovers.py,
around the whole run: fixtures of a module or the session may rightly outlive a single test.
"""

import faulthandler
import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# Two cores, shared with Envoy and PostgreSQL: how long one example takes says nothing. The same examples in CI each
# time, new ones for a person.
settings.register_profile(
    "podium",
    deadline=None,
    print_blob=True,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("podium")

# pytest-timeout's limit interrupts Python code. A test that hangs in C, or that swallows the interrupt, is ended
# this many seconds later together with the run, with every thread's stack on stderr.
_HARD_GRACE = 60.0
_STDERR = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    """Before anything is imported: no telemetry, and none of the caller's own Podium."""
    # Now, while pytest is not capturing: during a test, descriptor 2 leads to a file that dies with the run.
    config.stash[_STDERR] = os.dup(2)
    # A shell that starts the run in the background has SIGINT ignored, and children inherit that: tests send it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["DO_NOT_TRACK"] = "true"
    for name in [name for name in os.environ if name.startswith("PODIUM_")]:
        del os.environ[name]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Arm the hard limit around set-up, call and teardown of one test."""
    marker = item.get_closest_marker("timeout")
    if marker is None:
        limit = float(item.config.getini("timeout") or 0)
    else:
        limit = float(marker.args[0] if marker.args else marker.kwargs.get("timeout", 0))
    if limit <= 0:
        return (yield)
    faulthandler.dump_traceback_later(limit + _HARD_GRACE, exit=True, file=item.config.stash[_STDERR])
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()
