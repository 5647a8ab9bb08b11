"""docs/api.md names every operation that there is, and none that there is not."""

import re
from pathlib import Path

from podium.api.problems import STATUSES
from podium.resources.kinds import KINDS
from tests.integration.api.server import ApiServer

PAGE = Path(__file__).parents[3] / "docs" / "api.md"


def test_every_operation_is_documented(server: ApiServer) -> None:
    found: set[tuple[str, str]] = set()
    for method, path in re.findall(r"^\| `([A-Z]+) ([^`]+)` \|", PAGE.read_text(), re.MULTILINE):
        plurals = [kind.plural for kind in KINDS.values() if kind.name != "Workspace"]
        found |= (
            {(method, path.replace("{kinds}", plural)) for plural in plurals}
            if "{kinds}" in path
            else {(method, path)}
        )
    real = {
        (method.upper(), path)
        for path, methods in server.app.openapi()["paths"].items()
        for method in methods
    }
    assert found == real


def test_every_code_is_documented() -> None:
    text = PAGE.read_text()
    for kind, status in STATUSES.items():
        assert re.search(rf"^\| {status} \|.*`{kind.code}`", text, re.MULTILINE), (status, kind.code)


def test_every_operation_describes_its_errors(server: ApiServer) -> None:
    """Each can answer 422, 500 and 503, and 401 and 403 where a token is needed, with the problem's schema."""
    document = server.app.openapi()
    ids = set()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            ids.add(operation["operationId"])
            answers = operation["responses"]
            wanted = {"422", "500", "503"} | (set() if operation.get("security") == [] else {"401", "403"})
            assert wanted <= set(answers), (method, path)
            assert operation["summary"], (method, path)
            for status, answer in answers.items():
                if int(status) >= 400 and method != "head":
                    schema = answer["content"]["application/problem+json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/Problem"}, (method, path, status)
    assert len(ids) == sum(len(methods) for methods in document["paths"].values()), (
        "an operationId is there twice"
    )
    assert "HTTPValidationError" not in document["components"]["schemas"]
