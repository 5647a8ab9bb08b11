"""The guard around the test run: it ends what was left behind, says who left it, and keeps the exit status."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux gives orphans to a process of choice"
)

GUARD = Path(__file__).resolve().parents[3] / "tools" / "no_leftovers.py"


def guard(script: str) -> subprocess.CompletedProcess[str]:
    """Run a Python script under the guard."""
    return subprocess.run(
        [sys.executable, GUARD, sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(("script", "status"), [("pass", 0), ("raise SystemExit(7)", 7)])
def test_the_status_is_the_commands_own(script: str, status: int) -> None:
    assert guard(script).returncode == status


def test_a_command_killed_by_a_signal_is_told_as_a_shell_would() -> None:
    assert guard("import os; os.kill(os.getpid(), 9)").returncode == 137


# Detached twice over, as podium starts what has to outlive it.
LEAVE = """
import os, subprocess, sys
os.environ["PYTEST_CURRENT_TEST"] = "tests/test_x.py::test_careless (call)"
child = subprocess.Popen(["sleep", "300"], start_new_session=True)
print(child.pid)
"""


def test_a_detached_process_is_found_named_and_ended() -> None:
    done = guard(LEAVE)
    pid = int(done.stdout)
    try:
        assert done.returncode == 1
        assert f"pid {pid}: sleep 300" in done.stderr
        assert "tests/test_x.py::test_careless" in done.stderr
        assert not psutil.pid_exists(pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)


def test_a_failed_run_keeps_its_status_and_still_cleans_up() -> None:
    done = guard(LEAVE + "raise SystemExit(5)")
    assert done.returncode == 5
    assert not psutil.pid_exists(int(done.stdout))


def test_a_process_that_ends_by_itself_in_time_is_not_counted() -> None:
    done = guard("import subprocess; subprocess.Popen(['sleep', '0.5'], start_new_session=True)")
    assert (done.returncode, done.stderr) == (0, "")


def test_orphans_are_reaped_while_the_command_runs() -> None:
    """A test that waits for a killed replica to disappear must not see it as a zombie for ever."""
    done = guard(
        """
import os, subprocess, time
out = subprocess.run(["sh", "-c", "sleep 300 >/dev/null 2>&1 & echo $!"], capture_output=True, text=True).stdout
os.kill(int(out), 9)
deadline = time.monotonic() + 10
while time.monotonic() < deadline:
    try:
        os.kill(int(out), 0)
    except ProcessLookupError:
        raise SystemExit(0)
    time.sleep(0.01)
raise SystemExit(9)
"""
    )
    assert done.returncode == 0
