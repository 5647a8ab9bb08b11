"""A server per test; the one for many small questions is per module."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.api.server import ApiServer, serving
from tests.postgres import postgres_url

__all__ = ["postgres_url"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    with serving(tmp_path) as running:
        yield running


@pytest.fixture
def churn(server: ApiServer) -> ApiServer:
    """A server with a model `churn` that has the versions 1 and 2; `champion` is 1."""
    push_versions(server)
    return server


def push_versions(server: ApiServer, workspace: str = "default") -> None:
    """Two versions of `churn`."""
    http = server.http()
    for number in (1, 2):
        content = b"import math\n" + b"#" * number
        found = [(b"class: model:Model\n", "podium.yaml"), (content, "model.py")]
        files = []
        for data, path in found:
            sha = hashlib.sha256(data).hexdigest()
            assert http.put(f"/api/v1/blobs/{sha}", content=data).status_code in (200, 201)
            files.append({"path": path, "size": len(data), "sha256": sha})
        body = {"files": files, **({"alias": "champion"} if number == 1 else {})}
        answer = http.post(f"/api/v1/workspaces/{workspace}/models/churn/versions", json=body)
        assert answer.status_code == 200, answer.text
        assert '"created":true' in answer.text, answer.text
