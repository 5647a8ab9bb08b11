"""The command of another server: how it is written, filled in, and what it rules out."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from podium.resources.command import PLACEHOLDERS, fill, placeholders
from podium.resources.deployment import DeploymentSpec, RuntimeSettings
from podium.resources.issues import issues_of


def problems(runtime: dict[str, Any], **spec: Any) -> list[str]:
    try:
        DeploymentSpec.model_validate({"model": {"name": "m", "version": 1}, "runtime": runtime, **spec})
    except ValidationError as error:
        return [f"{issue.field}: {issue.message}" for issue in issues_of(error, model=DeploymentSpec)]
    return []


def test_a_text_is_split_without_a_shell() -> None:
    made = RuntimeSettings.model_validate({"command": "serve --name 'two words' $HOME `id` ; rm *"})
    assert made.command == ["serve", "--name", "two words", "$HOME", "`id`", ";", "rm", "*"]
    assert RuntimeSettings.model_validate(made.model_dump(mode="json", by_alias=True)) == made


def test_ports_follow_from_the_placeholders() -> None:
    env = {"GRPC": "{port.grpc}", "METRICS": "{host}:{port.metrics}"}
    made = RuntimeSettings.model_validate({"command": "serve {model} {port}", "env": env})
    assert made.extra_ports == ("grpc", "metrics")
    assert not made.takes_descriptor
    assert RuntimeSettings.model_validate({"command": "serve --fd {fd}"}).takes_descriptor
    assert RuntimeSettings().takes_descriptor, "Podium's own listens on the socket that it is given"


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        ({}, "/v2/health/ready"),
        ({"command": "serve"}, "/v2/health/ready"),
        ({"command": "serve", "protocol": "openai"}, "/health"),
        ({"command": "serve", "protocol": "http", "readyPath": "/up?a=1"}, "/up?a=1"),
    ],
)
def test_where_readiness_is_asked_for(settings: dict[str, Any], path: str) -> None:
    assert RuntimeSettings.model_validate(settings).probe_path == path


@pytest.mark.parametrize(
    ("runtime", "words"),
    [
        ({"command": []}, "expected at least 1 item"),
        ({"command": [""]}, "expected a program first"),
        ({"command": "serve 'half"}, "expected a command: No closing quotation"),
        ({"command": "serve {models}"}, "unknown placeholder {models}; known: {python}, {model}"),
        ({"command": "serve", "env": {"A": "{nope}"}}, "unknown placeholder {nope}"),
        ({"command": ["serve", "a\x00b"]}, "expected no NUL"),
        ({"command": "bin/serve"}, "expected a name, an absolute path or one that begins with a placeholder"),
        ({"command": "serve {port} {fd}"}, "expected either {fd} or a port"),
        ({"command": "serve {fd}", "port": 8000}, "expected either {fd} or a port"),
        ({"command": "serve", "protocol": "http"}, "readyPath: expected one with protocol http"),
        ({"command": "serve", "protocol": "tcp"}, "oip"),
        ({"command": "serve", "readyPath": "up"}, "expected a path that begins with '/'"),
        ({"command": "serve", "readyPath": "/up HTTP/1.1\r\nX: y"}, "visible ASCII characters"),
        ({"command": "serve", "modelName": "a/../b"}, "expected 1 to 128 letters, digits and . _ -"),
        ({"command": "serve", "modelName": '"]]..os'}, "expected 1 to 128 letters"),
        ({"command": "serve", "protocol": "openai", "modelName": "m"}, "modelName: only with protocol oip"),
        ({"command": "serve", "port": 80}, "1024"),
        ({"command": "serve", "maxBatch": 8}, "maxBatch: a setting of Podium's own model server"),
        ({"command": "serve", "queueLength": 8}, "queueLength: a setting of Podium's own model server"),
        ({"port": 8000}, "port: only with command"),
        ({"readyPath": "/up"}, "readyPath: only with command"),
        ({"modelName": "m"}, "modelName: only with command"),
        ({"protocol": "openai"}, "protocol: only with command"),
        ({"command": " ".join(f"{{port.p{n}}}" for n in range(9))}, "at most 8 ports"),
    ],
)
def test_what_is_refused(runtime: dict[str, Any], words: str) -> None:
    (problem,) = problems(runtime)
    assert words in problem
    assert problem.startswith("runtime"), problem


def test_a_fixed_port_is_one_replica() -> None:
    (problem,) = problems({"command": "serve", "port": 8000}, replicas=2)
    assert "runtime.port: a fixed port serves one replica" in problem
    assert problems({"command": "serve", "port": 8000}) == []


VALUES = {name: f"<{name}>" for name in PLACEHOLDERS}


def test_other_braces_are_left_alone() -> None:
    assert fill("{port}", VALUES) == "<port>"
    assert fill("{{port}}", VALUES) == "{port}"
    assert fill('{"a": {"b": [1, {}]}}', VALUES) == '{"a": {"b": [1, {}]}}'
    assert fill("{% if x %}{{ message }}${{port}}", VALUES) == "{% if x %}{{ message }}${port}"
    assert fill("{model}/{model}", {"model": "{port}"}) == "{port}/{port}", "a value is not looked at again"


@given(st.text(alphabet='{}port.x a"1', max_size=30))
def test_what_is_accepted_can_be_filled(text: str) -> None:
    try:
        used = placeholders([text])
    except ValueError:
        return
    filled = fill(text, VALUES | {name: f"<{name}>" for name in used})
    assert all(f"<{name}>" in filled for name in used)
