"""apply, diff, get, describe, delete and what they say, against a real server."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.integration.api.server import TESTER, ApiServer, deployment, workspace
from tests.integration.cli.conftest import Podium


@pytest.fixture
def churn_file(tmp_path: Path) -> str:
    path = tmp_path / "churn.yaml"
    path.write_text(yaml.safe_dump(deployment("churn")))
    return str(path)


def test_apply_says_what_it_did_and_what_follows(podium: Podium, churn: ApiServer, churn_file: str) -> None:
    created = podium("apply", "-f", churn_file)
    assert created.out.startswith("Deployment churn created\n")
    assert "503" in created.out
    assert podium("apply", "-f", churn_file).out.startswith("Deployment churn unchanged")


def test_an_update_needs_no_resource_version_in_the_file(
    podium: Podium, churn: ApiServer, tmp_path: Path
) -> None:
    for replicas in (0, 2):
        (tmp_path / "d.json").write_text(json.dumps(deployment("churn", replicas=replicas)))
        podium("apply", "-f", "d.json")
    assert podium("get", "deployment", "churn", "-o", "json").json()["spec"]["replicas"] == 2


def test_what_get_printed_can_be_applied_again(
    podium: Podium, churn: ApiServer, churn_file: str, tmp_path: Path
) -> None:
    podium("apply", "-f", churn_file)
    for output in ("json", "yaml"):
        for arguments in (("get", "deployment", "churn"), ("get", "deployments")):
            text = podium(*arguments, "-o", output).out
            assert "unchanged" in podium("apply", "-f", "-", stdin=text).out


def test_a_stale_resource_version_is_a_conflict_and_changes_nothing(
    podium: Podium, churn: ApiServer, churn_file: str
) -> None:
    podium("apply", "-f", churn_file)
    old = podium("get", "deployment", "churn", "-o", "json").json()
    podium("apply", "-f", "-", stdin=json.dumps(deployment("churn", replicas=3)))
    old["spec"]["replicas"] = 7
    refused = podium("apply", "-f", "-", stdin=json.dumps(old), code=1)
    assert "metadata.resourceVersion" in refused.err
    assert podium("get", "deployment", "churn", "-o", "json").json()["spec"]["replicas"] == 3


def test_nothing_is_sent_if_one_document_is_invalid(podium: Podium, churn: ApiServer, tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "a.yaml").write_text(yaml.safe_dump(deployment("first")))
    wrong = [deployment("second", replicas=-1), deployment("third", modell=1)]
    (tmp_path / "all" / "b.yaml").write_text(yaml.safe_dump_all(wrong))
    result = podium("apply", "-f", "all", code=1)
    assert "all/b.yaml, document 1: spec.replicas" in result.err
    assert "all/b.yaml, document 2: spec.modell" in result.err
    assert result.err.count("Error:") == 2
    assert podium("get", "deployments", "-o", "json").json() == {"items": []}


def test_the_order_is_tenant_then_model_then_deployment(podium: Podium, churn: ApiServer) -> None:
    documents = [
        {
            "apiVersion": "podium/v1",
            "kind": "Model",
            "metadata": {"name": "m", "workspace": "team-a"},
            "spec": {},
        },
        workspace("team-a"),
    ]
    text = yaml.safe_dump_all(documents)
    assert podium("apply", "-f", "-", stdin=text).out.splitlines() == [
        "Workspace team-a created",
        "Model m created",
    ]
    everywhere = podium("get", "models", "-A", "-o", "json").json()["items"]
    assert {item["metadata"]["workspace"] for item in everywhere} == {"default", "team-a"}
    assert [
        item["metadata"]["name"] for item in podium("get", "m", "-w", "team-a", "-o", "json").json()["items"]
    ] == ["m"]


def test_the_workspace_of_the_command_line_must_fit_the_document(
    podium: Podium, churn: ApiServer, churn_file: str
) -> None:
    result = podium("apply", "-f", churn_file, "-w", "team-a", code=1)
    assert "metadata.workspace" in result.err


def test_a_refusal_in_the_middle_says_what_was_applied(
    podium: Podium, churn: ApiServer, tmp_path: Path
) -> None:
    text = yaml.safe_dump_all(
        [deployment("one"), deployment("two", model={"name": "nosuch", "version": "1"}), deployment("three")]
    )
    result = podium("apply", "-f", "-", stdin=text, code=1)
    assert "stdin, document 2: Deployment two was refused" in result.err
    assert "spec.model.name: there is no model nosuch" in result.err
    assert "1 of 3 documents are applied, 2 are not" in result.err


def test_dry_run_and_diff_change_nothing(podium: Podium, churn: ApiServer, churn_file: str) -> None:
    assert "would be created" in podium("apply", "-f", churn_file, "--dry-run").out
    assert podium("get", "deployments", "-o", "json").json() == {"items": []}
    podium("apply", "-f", churn_file)
    changed = json.dumps(deployment("churn", replicas=2))
    told = podium("diff", "-f", "-", stdin=changed)
    assert "would be updated" in told.out
    assert "~ spec.replicas: 0 -> 2" in told.out
    [item] = podium("diff", "-f", "-", "-o", "json", stdin=changed).json()["items"]
    assert item["action"] == "updated"
    assert item["dryRun"] is True
    assert {"path": "spec.replicas", "from": 0, "to": 2} in item["changes"]
    assert podium("get", "deployment", "churn", "-o", "json").json()["spec"]["replicas"] == 0


def test_get_by_selectors(podium: Podium, churn: ApiServer) -> None:
    for name, team in (("one", "a"), ("two", "b")):
        document = deployment(name)
        document["metadata"]["labels"] = {"team": team}
        podium("apply", "-f", "-", stdin=json.dumps(document))
    found = podium("get", "d", "-l", "team in (b)", "-o", "json").json()["items"]
    assert [item["metadata"]["name"] for item in found] == ["two"]
    found = podium("get", "deployments", "--field-selector", "spec.model.name!=churn", "-o", "json").json()[
        "items"
    ]
    assert found == []
    wrong = podium("get", "deployments", "--field-selector", "spec.nosuch=1", code=1)
    assert "spec.nosuch" in wrong.err
    table = podium("get", "deployments").out.splitlines()
    assert table[0].split()[:3] == ["NAME", "MODEL", "PHASE"]
    assert table[1].startswith("one")


def test_get_watch_shows_what_is_and_then_every_change_until_ctrl_c(
    podium: Podium, churn: ApiServer, churn_file: str
) -> None:
    podium("apply", "-f", churn_file)
    with subprocess.Popen(
        [sys.executable, "-m", "podium.cli", "get", "deployments", "--watch", "-o", "json"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            first = json.loads(process.stdout.readline())
            podium("apply", "-f", "-", stdin=json.dumps(deployment("churn", replicas=2)))
            second = json.loads(process.stdout.readline())
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130
        finally:
            process.kill()
    assert (first["type"], first["object"]["spec"]["replicas"]) == ("ADDED", 0)
    assert (second["type"], second["object"]["spec"]["replicas"]) == ("MODIFIED", 2)


def test_describe_shows_the_wish_the_state_and_the_events(
    podium: Podium, churn: ApiServer, churn_file: str
) -> None:
    podium("apply", "-f", churn_file)
    with churn.store.write(TESTER) as tx:
        tx.event(
            tx.get("Deployment", "default", "churn"),
            "Warning",
            "Odd",
            "something \x1b[31mred\x1b[0m happened",
        )
    told = podium("describe", "deployment", "churn").out
    assert "Deployment churn in workspace default" in told
    assert "  replicas: 0" in told
    assert "Odd" in told
    assert "\x1b" not in told
    found = podium("describe", "deployment", "churn", "-o", "json").json()
    assert found["object"]["metadata"]["name"] == "churn"
    assert found["events"][0]["reason"] == "Odd"


def test_delete_by_name_and_by_file(podium: Podium, churn: ApiServer, churn_file: str) -> None:
    podium("apply", "-f", churn_file)
    assert "is being deleted" in podium("delete", "deployment", "churn").out
    # No reconciler runs here: the finalizer stays, and so does the object.
    assert podium("delete", "deployment", "churn", "--wait", "--timeout", "0.2s", code=12).code == 12
    podium("apply", "-f", "-", stdin=yaml.safe_dump(workspace("gone")))
    assert (
        podium("delete", "-f", "-", stdin=yaml.safe_dump(workspace("gone"))).out == "Workspace gone deleted\n"
    )
    missing = podium("delete", "deployment", "nosuch", code=1)
    assert missing.err.startswith("Error: ")
    assert "nosuch" in missing.err


def test_errors_are_one_line_with_the_next_step(
    podium: Podium, churn: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(podium("get", "deployment", "nosuch", code=1).err.splitlines()) == 1
    unknown = podium("get", "gizmos", code=1)
    assert "known: Workspace, Model" in unknown.err
    monkeypatch.setenv("PODIUM_TOKEN", "nonsense")
    bad = podium("get", "deployments", code=1)
    assert "token" in bad.err
    assert "Next:" in bad.err


def test_a_server_that_does_not_run(podium: Podium, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("PODIUM_URL", f"http://127.0.0.1:{port}")
    said = podium("get", "deployments", code=1).err
    assert said == f"Error: Podium is not running at http://127.0.0.1:{port}; start it with `podium up`\n"
