"""`podium model serve` and `podium model profile` with a real model, a real environment and real processes.

Needs a package index, as `make setup` does; what was downloaded once comes from uv's cache.
"""

import contextlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from podium.resources.kinds import parse_applied

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(400),
    pytest.mark.skipif(sys.platform != "linux", reason="replicas as processes need Linux"),
]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A home and a model; whatever runs there at the end is stopped."""
    folder = Path(tempfile.mkdtemp(prefix="sp-", dir="/tmp"))
    data = load_wine()
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(data.data, data.target)
    (folder / "Wine v1.pkl").write_bytes(pickle.dumps(model))
    (folder / "notes.md").write_text("no model")
    (folder / "rows.json").write_text(json.dumps(data.data[:40].tolist()))
    try:
        yield folder
    finally:
        podium(folder, "down")
        shutil.rmtree(folder)


def environment(place: Path) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PODIUM_")}
    return {**clean, "PODIUM_HOME": str(place / "home"), "PODIUM_API_PORT": "0", "PODIUM_GATEWAY_PORT": "0"}


def podium(place: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "podium.cli", *arguments],
        env=environment(place), capture_output=True, text=True, timeout=300, check=False, cwd=place,
    )  # fmt: skip


@contextlib.contextmanager
def started(place: Path, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """A command that goes on."""
    with subprocess.Popen(
        [sys.executable, "-m", "podium.cli", *arguments],
        env=environment(place), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=place,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def until(what: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.02)


def running(place: Path, *words: str) -> list[int]:
    """Processes with the home and all these words in their command line, but those of the server itself."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if str(place) in line and all(word in line for word in words):
                    found.append(int(entry.name))
    return found


def ready(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """The announcement of `model serve -o json`."""
    assert process.stdout is not None
    text = ""
    while True:
        line = process.stdout.readline()
        assert line, process.stderr.read() if process.stderr else ""
        text += line
        if line == "}\n":
            return dict(json.loads(text))


def test_serve_a_file_until_ctrl_c(place: Path) -> None:
    with started(place, "model", "serve", "Wine v1.pkl", "--port", "0", "-o", "json") as process:
        found = ready(process)
        assert found["name"] == "wine-v1"
        assert found["flavor"] == "sklearn"
        assert found["example"]["status"] == 200
        assert found["example"]["answer"]["outputs"][0]["name"] == "predict"
        # The line that a person would paste, run by a shell as they would.
        if shutil.which("curl"):
            pasted = subprocess.run(
                ["sh", "-c", found["example"]["command"]],
                capture_output=True,
                text=True,
                timeout=30,
                check=True,
            )
            assert json.loads(pasted.stdout) == found["example"]["answer"]
        row = load_wine().data[0].tolist()
        body = {"inputs": [{"name": "input", "shape": [1, 13], "datatype": "FP64", "data": row}]}
        request = urllib.request.Request(
            f"{found['url']}/infer", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as answer:
            assert json.loads(answer.read())["outputs"][0]["data"] == [0]
        busy = podium(
            place, "model", "serve", "Wine v1.pkl", "--port", found["url"].split(":")[2].split("/")[0]
        )
        assert busy.returncode == 1
        assert (
            "cannot be listened on: Address already in use. Next: choose another with --port" in busy.stderr
        )
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    until(lambda: not running(place))
    assert list((place / "home" / "serving").iterdir()) == []


def test_the_model_server_goes_with_whoever_started_it(place: Path) -> None:
    with started(place, "model", "serve", "Wine v1.pkl", "--port", "0", "-o", "json") as process:
        found = ready(process)
        assert found["pid"] in running(place, "podium_runtime")
        process.kill()
        process.wait(10)
        until(lambda: not running(place))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nosuch.pkl"], "PATH: "),
        (["notes.md"], "no known model in notes.md"),
        (["Wine v1.pkl", "--name", "Not A Name"], "--name: expected 1 to 53"),
        (["Wine v1.pkl", "--python", "2.7"], "python: expected a Python version"),
        (["Wine v1.pkl", "--flavor", "magic"], "flavor: "),
        (["Wine v1.pkl", "--requirement", "-r other.txt"], "options are not allowed"),
    ],
)
def test_what_cannot_be_served_is_one_readable_line(place: Path, arguments: list[str], words: str) -> None:
    done = podium(place, "model", "serve", *arguments, "--port", "0")
    assert done.returncode == 1
    assert done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert words in errors[0], done.stderr
    assert "Traceback" not in done.stderr


def test_a_model_that_does_not_load_says_why_and_leaves_nothing(place: Path) -> None:
    (place / "broken").mkdir()
    (place / "broken" / "podium.yaml").write_text("class: model:Model\n")
    (place / "broken" / "model.py").write_text("import no_such_package_at_all\n")
    done = podium(place, "model", "serve", "broken", "--port", "0")
    assert done.returncode == 1
    assert "no_such_package_at_all" in done.stderr
    assert "Next: check what it needs: --requirement" in done.stderr
    assert not running(place, "podium_runtime")


@pytest.fixture(scope="module")
def pushed(place: Path) -> Path:
    """A server with the model as `wine` version 1."""
    up = podium(place, "up", "--detach", "--timeout", "2m")
    assert up.returncode == 0, up.stderr
    done = podium(place, "model", "push", "wine", "Wine v1.pkl", "--alias", "champion")
    assert done.returncode == 0, done.stderr
    return place


def test_a_profile_end_to_end(pushed: Path) -> None:
    done = podium(
        pushed, "model", "profile", "wine:@champion", "--budget", "6s", "--rate", "50/s", "--rows", "rows.json",
        "--plot", "wine.svg", "-o", "json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    measured = document["profile"]
    assert document["name"] == "wine.1"
    assert measured["inputs"] == "given"
    assert measured["seconds"] < 6 + 10
    assert measured["packages"][0].startswith("scikit-learn==")
    # How far they go depends on how busy the machine is.
    for series, axis in (("batches", "rows"), ("load", "connections")):
        places = [point[axis] for point in measured[series]]
        assert places == [2**number for number in range(len(places))]
        assert places
    for point in [*measured["batches"], *measured["load"], *measured["checks"]]:
        assert point["failed"] == 0
        assert 0 < point["p50Ms"] <= point["p99Ms"] <= point["maxMs"]
        assert 20 * 2**20 < point["memory"] <= measured["memoryPeak"]
    proposal = measured["proposal"]
    assert proposal["memory"] > measured["memoryPeak"]
    if proposal["replicas"] is not None:  # a machine that is busy enough may hold no rate at all
        assert proposal["replicas"] * proposal["sustained"] >= 50
        parse_applied(proposal["deployment"])
    ElementTree.fromstring((pushed / "wine.svg").read_text())
    kept = podium(pushed, "model", "profile", "wine:1", "--kept", "-o", "json")
    assert json.loads(kept.stdout) == document
    shown = podium(pushed, "model", "profile", "wine:1", "--kept").stdout
    assert "CONNECTIONS" in shown
    assert f"{len(measured['load'])}" in shown
    assert not running(pushed, "profiles"), "the replica that was measured is gone"


def test_ctrl_c_ends_a_profile_and_its_replica(pushed: Path) -> None:
    before = podium(pushed, "get", "modelversions", "wine.1", "-o", "json").stdout
    with started(pushed, "model", "profile", "wine:1", "--budget", "5m") as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "in a request: " in line:
                break
        assert running(pushed, "podium_runtime", "profiles")
        second = podium(pushed, "model", "profile", "wine:1", "--budget", "2s")
        assert second.returncode == 1
        assert "another profile is under way" in second.stderr
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    until(lambda: not running(pushed, "profiles"))
    assert podium(pushed, "get", "modelversions", "wine.1", "-o", "json").stdout == before, (
        "nothing is kept of it"
    )


def test_rows_that_the_model_refuses_are_said(pushed: Path) -> None:
    (pushed / "short.json").write_text("[[1, 2, 3]]")
    done = podium(pushed, "model", "profile", "wine:1", "--budget", "3s", "--rows", "short.json")
    assert done.returncode == 1
    assert "rows: the model does not answer the inputs that were given: HTTP 400" in done.stderr
    assert "--rows FILE" in done.stderr
    until(lambda: not running(pushed, "profiles"))
    unknown = podium(pushed, "model", "profile", "wine:7")
    assert unknown.returncode == 1
    assert "wine.7" in unknown.stderr


def test_a_server_that_is_killed_leaves_no_replica_that_is_measured(pushed: Path) -> None:
    with started(pushed, "model", "profile", "wine:1", "--budget", "5m") as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "in a request: " in line:
                break
        server = json.loads(podium(pushed, "status", "-o", "json").stdout)["processes"]["server"]
        os.kill(server, signal.SIGKILL)
        assert process.wait(60) == 1
    until(lambda: not running(pushed, "profiles"), 90)
