"""The API against its own OpenAPI document: schemathesis with all its checks, on a real server."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.api.conftest import push_versions
from tests.integration.api.server import deployment, serving

HERE = Path(__file__).parent


@pytest.mark.timeout(300)
def test_the_api_keeps_its_word(tmp_path: Path) -> None:
    """No 5xx, documented statuses and content types, answers that fit their schemas, wrong data refused with the
    field's name, right data taken, 405 with the right Allow, no way in without a token."""
    with serving(tmp_path) as server:
        push_versions(server)
        server.create(deployment("churn"))
        server.profiler.finish.set()
        # One worker: on Python 3.11 `ast`, which hypothesis reads lambdas with, is not safe for threads.
        command = [
            str(Path(sys.executable).with_name("schemathesis")),
            "--config-file", str(HERE / "schemathesis.toml"),
            "run", f"{server.url}/openapi.json",
            "--header", f"Authorization: Bearer {server.admin_token}",
            "--checks", "all", "--phases", "examples,coverage,fuzzing", "--max-examples", "6",
            "--continue-on-failure", "--seed", "20261121", "--no-color",
        ]  # fmt: skip
        environment = {**os.environ, "SCHEMATHESIS_HOOKS": str(HERE / "fuzz_checks.py")}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=280
        )
    assert done.returncode == 0, done.stdout[-12_000:] + done.stderr[-2_000:]
    tested = re.search(r"Tested: (\d+)", done.stdout)
    assert tested is not None, done.stdout[-3_000:]
    assert int(tested[1]) >= 50, done.stdout[-3_000:]
