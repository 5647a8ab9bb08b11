"""Runs `podium demo` as a person would, and reads what it says: four versions, four rollouts, and who did what."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
LONGEST = 200
"""Seconds that the demo may take, its clean-up aside."""
STORY = (
    "Promoted: tumour-00001 goes live",
    "RolledBack: tumour-00002 fails where a measurement is missing",
    "RolledBack: tumour-00003 is right, but slow",
    "Promoted: tumour-00004 takes missing values by itself",
)
ACTS = {
    1: ["create", "rollout.Promoting", "rollout.Promoted"],
    2: ["create", "rollout.WeightChanged", "rollout.RollingBack", "rollout.RolledBack"],
    3: ["create", "rollout.WeightChanged", "rollout.RollingBack", "rollout.RolledBack"],
    4: ["create", "rollout.WeightChanged", "rollout.WeightChanged", "rollout.Promoting", "rollout.Promoted"],
}
"""What the audit tells of each rollout, in order. The slow one may be found out at its first step or at its second."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where the demo puts its own: short, for there are sockets in it."""
    made = Path(tempfile.mkdtemp(prefix="pd-", dir="/tmp"))
    try:
        yield made
    finally:
        for home in made.glob("*/home"):
            # A demo that was cut short: what it started has to end as well.
            down = [sys.executable, "-m", "podium.app", "down", "--home", str(home)]
            subprocess.run(down, capture_output=True, timeout=30, check=False)
        shutil.rmtree(made, ignore_errors=True)


def tell(folder: Path) -> tuple[int, str]:
    """Exit code and everything that was printed. It is asked to end, as by Ctrl-C, when its time is up."""
    cleared = {name: value for name, value in os.environ.items() if not name.startswith("PODIUM_")}
    environment = {**cleared, "PODIUM_HOME": str(folder / "none"), "TMPDIR": str(folder), "COLUMNS": "200"}
    demo = subprocess.Popen(
        [str(Path(sys.executable).parent / "podium"), "demo"],
        env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        text, _ = demo.communicate(timeout=LONGEST)
    except subprocess.TimeoutExpired:
        demo.send_signal(signal.SIGINT)
        try:
            text, _ = demo.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            demo.kill()
            text, _ = demo.communicate()
        pytest.fail(f"the demo was not over after {LONGEST} s:\n{text[-4000:]}")
    return demo.returncode, text


def test_the_demo_tells_its_story_and_leaves_nothing_behind(folder: Path) -> None:
    code, text = tell(folder)
    assert code == 0, text[-6000:]
    places = [text.find(line) for line in STORY]
    assert -1 not in places, text
    assert places == sorted(places), "told out of order"
    assert "rolled back on error rate: " in text
    assert "rolled back on slow rate: " in text
    assert re.search(r"All four went as they should, in \d+ s\.", text)
    assert not (folder / "none").exists(), "a demo has a home of its own"
    assert list(folder.glob("podium-demo-*")) == [], "its own folder is gone as well"
    _check_audit(text[text.index("who did what (audit)") :])


def _check_audit(text: str) -> None:
    rows = re.findall(r"^\d\d:\d\d:\d\d +(\S+) +(\S+) +(\S+)/(\S+)", text, re.MULTILINE)
    asked = [(verb, name) for who, verb, kind, name in rows if (who, kind) == ("admin", "Deployment")]
    assert asked == [("create", "tumour"), *[("update", "tumour")] * 3]
    pushed = [name for _, verb, kind, name in rows if (verb, kind) == ("create", "ModelVersion")]
    assert pushed == [f"tumour.{number}" for number in ACTS]
    for number, expected in ACTS.items():
        told = [verb for _, verb, kind, name in rows if (kind, name) == ("Rollout", f"tumour-{number}")]
        if number == 3:
            told = [verb for n, verb in enumerate(told) if n == 0 or verb != told[n - 1]]
        assert told == expected, f"rollout {number}"
