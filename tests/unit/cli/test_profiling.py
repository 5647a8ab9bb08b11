"""The command line of `model profile`, and its picture."""

import datetime
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from podium.cli.commands import profiling
from podium.cli.plot import svg
from podium.resources.errors import InvalidInput
from podium.resources.profile import Profile, ProfilePoint, ProfileProposal


@pytest.mark.parametrize(("text", "rate"), [("200/s", 200), ("600/m", 10), ("7200/h", 2), ("0.5", 0.5)])
def test_rates(text: str, rate: float) -> None:
    assert profiling._rate(text) == rate


@pytest.mark.parametrize("text", ["0/s", "many", "-3/s", "3/d", "1e9/s", ""])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(InvalidInput, match="--rate: expected a rate such as"):
        profiling._rate(text)


@pytest.mark.parametrize("text", ["churn", "churn:", ":3", "churn:three", "churn:0", "churn:@"])
def test_what_is_no_version(text: str) -> None:
    with pytest.raises(InvalidInput, match="NAME:VERSION: expected a model and a version"):
        profiling._reference(text)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([[1, None]], {"rows": [[1, None]]}),
        ({"x": [[1, 2]]}, {"inputs": {"x": [[1, 2]]}}),
        (
            {"inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP64", "data": [1, 2, 3, 4]}]},
            {"inputs": {"x": [[1, 2], [3, 4]]}},
        ),
    ],
)
def test_rows_of_a_file(tmp_path: Path, content: Any, expected: Any) -> None:
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(content))
    assert profiling._given(file) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "expected JSON"),
        ("[Infinity]", "knows no infinity"),
        ("[]", "expected a list of rows"),
        ("3", "expected a list of rows"),
        ('{"inputs": [{"name": "x"}]}', r"inputs\[0\]: expected a tensor"),
        ('{"inputs": [{"name": "x", "shape": [3], "data": [1]}]}', r"inputs\[0\]\.data: expected 3 values"),
        ('{"inputs": [{"name": "x", "shape": [-1], "data": [1]}]}', r"inputs\[0\]\.shape"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "rows.json"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=words):
        profiling._given(file)
    with pytest.raises(InvalidInput, match="no such file"):
        profiling._given(tmp_path / "other.json")


def test_a_picture_must_be_svg_and_writable(tmp_path: Path) -> None:
    profiling._check_plot(tmp_path / "a.svg")
    for file in (tmp_path / "a.png", tmp_path / "nosuch" / "a.svg"):
        with pytest.raises(InvalidInput, match="--plot: "):
            profiling._check_plot(file)


def profile(points: int, p99_ms: float | None = 50.0) -> Profile:
    series = [
        ProfilePoint(rows=2**n, connections=2**n, requests=100, failed=0, seconds=1, per_second=100.0 * (n + 1),
                     p50_ms=n + 1.0, p99_ms=2.0 * n + 3, max_ms=100, memory=(80 + n) * 2**20)
        for n in range(points)
    ]  # fmt: skip
    return Profile(
        measured_at=datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC), seconds=60, start_seconds=1,
        inputs="given", p99_ms=p99_ms, batches=series, load=series, checks=[], memory_idle=0, memory_peak=0,
        proposal=ProfileProposal(cpus=1, memory=256 * 2**20, max_batch=8), podium="0", runtime_wheel="0",
        python="3.11", cores=2, cpus=1, machine="<m & n>", sandbox="full",
    )  # fmt: skip


def test_the_picture_shows_every_point_inside_its_frame() -> None:
    for points in (1, 5, 9):
        root = ElementTree.fromstring(svg(profile(points), "churn <3> & co"))
        tag = "{http://www.w3.org/2000/svg}"
        circles = root.findall(f"{tag}circle")
        # Per row of panels: throughput, p50, p99 and memory.
        assert len(circles) == 2 * 4 * points
        for circle in circles:
            assert 0 <= float(circle.attrib["cx"]) <= 1080
            assert 100 <= float(circle.attrib["cy"]) <= 600
        words = [text.text or "" for text in root.findall(f"{tag}text")]
        assert "churn <3> & co" in words
        assert words.count("wished p99") == 2
        assert words.count("proposed limit") == 2


def test_higher_figures_stand_higher_and_a_picture_without_points_is_none_the_less_one() -> None:
    text = svg(profile(4, None), "churn")
    assert "wished p99" not in text
    heights = [float(value) for value in re.findall(r'<circle cx="[\d.]+" cy="([\d.]+)"', text)][:4]
    assert heights == sorted(heights, reverse=True)
    ElementTree.fromstring(svg(profile(0), "churn"))
