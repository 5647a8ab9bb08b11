"""What a wish becomes: the model server's configuration, its walls, its processors."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest

from podium.resources.deployment import ResourceLimits, RuntimeSettings, SandboxSettings
from podium.resources.errors import Unavailable
from podium.resources.revision import RevisionSpec
from podium.targets.port import ReplicaWish
from podium.targets.process.programs import choose_processors, configuration, program
from podium_runtime.config import read_config


@pytest.fixture
def wish(tmp_path: Path) -> ReplicaWish:
    spec = RevisionSpec(
        deployment="churn", deployment_uid="d", number=2, model="churn", version="3",
        manifest_digest="sha256:" + "a" * 64, runtime_wheel="b" * 64, target="process",
        resources=ResourceLimits(memory=2**30, cpus=2, niceness=3),
        runtime=RuntimeSettings(max_delay=0.005, drain=7, env={"TZ": "UTC", "HOME": "/elsewhere"}),
        sandbox=SandboxSettings(require="files", connect_ports=[5432]), idempotent=True, content_hash="c",
    )  # fmt: skip
    return ReplicaWish(
        "churn-00002-1",
        "team",
        "churn-00002",
        "u",
        "churn",
        spec,
        Path(sys.executable),
        tmp_path / "m",
        tmp_path / "x.json",
    )


def test_the_configuration_is_the_runtimes_contract(wish: ReplicaWish, tmp_path: Path) -> None:
    assert configuration(wish, tmp_path / "r", {}) == {
        "served": {"name": "churn", "version": "3", "workspace": "team", "revision": "churn-00002"},
        "modelPath": str(tmp_path / "m"), "manifestPath": str(tmp_path / "x.json"),
        "manifestDigest": "sha256:" + "a" * 64, "listen": {"fd": 3},
        "batch": {"maxSize": 64, "maxDelayMs": 5.0}, "queue": {"maxLength": 1024}, "maxBodyBytes": 16 * 2**20,
        "warmup": {"requests": 1, "example": None}, "drainSeconds": 7.0, "requestTimeoutSeconds": 30.0, "threads": 2,
    }  # fmt: skip


def test_what_a_spec_says_beyond_the_defaults_is_told(wish: ReplicaWish, tmp_path: Path) -> None:
    """And nothing else: an earlier build, which a revision may pin, refuses names that it does not know."""
    tensor = {"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [[0.5, None]]}
    example = {"inputs": [tensor], "parameters": {"maxTokens": 3}}
    given = {
        "warmup": {"requests": 3, "example": example},
        "watchdog": "0s",
        "maxStreams": 2,
        "maxTensorElements": 9,
    }
    runtime = RuntimeSettings.model_validate(given)
    spec = wish.spec.model_copy(update={"runtime": runtime})
    found = configuration(dataclasses.replace(wish, spec=spec), tmp_path / "r", {})
    assert found["warmup"] == {"requests": 3, "example": example}
    assert (found["watchdogSeconds"], found["maxStreams"], found["maxTensorElements"]) == (0.0, 2, 9)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(found))
    read = read_config(path)
    assert (read.warmup_requests, read.warmup_example) == (3, example)
    assert (read.watchdog_seconds, read.max_streams, read.max_tensor_elements) == (0.0, 2, 9)


def test_the_walls_are_those_of_the_spec(wish: ReplicaWish, tmp_path: Path) -> None:
    made = program(wish, tmp_path / "r", tmp_path / "s", (1,), {})
    assert made.box.require == "files"
    assert made.box.connect_ports == (5432,)
    assert made.box.read == (tmp_path / "m", tmp_path / "x.json", tmp_path / "r" / "config.json")
    assert (made.limits.memory, made.limits.niceness, made.limits.cpus) == (2**30, 3, (1,))
    assert made.grace == 12.0
    assert made.env["OMP_NUM_THREADS"] == "2"
    assert made.env["HOME"] == "/elsewhere", "the spec's variables win"
    assert made.env["TMPDIR"] == str(tmp_path / "r" / "tmp")
    assert made.argv[1:] == ("-I", "-B", "-m", "podium_runtime", "serve", str(tmp_path / "r" / "config.json"))


def test_an_environment_that_is_gone_can_be_tried_again(wish: ReplicaWish, tmp_path: Path) -> None:
    gone = dataclasses.replace(wish, python=tmp_path / "bin" / "python")
    with pytest.raises(Unavailable, match="environment of churn-00002 is gone"):
        program(gone, tmp_path / "r", tmp_path / "s", (), {})


@pytest.mark.parametrize(
    ("count", "taken", "chosen"),
    [
        (1, [], (0,)),
        (1, [(0,)], (1,)),
        (2, [(0,), (1, 2)], (0, 3)),
        (2, [(0, 3), (0, 3), (1,)], (1, 2)),
        (9, [(0,)], (0, 1, 2, 3)),
        (1, [(), (0, 7)], (1,)),
    ],
)
def test_processors_are_those_that_the_fewest_are_bound_to(
    count: int, taken: list[tuple[int, ...]], chosen: tuple[int, ...]
) -> None:
    assert choose_processors(count, {0, 1, 2, 3}, taken) == chosen
