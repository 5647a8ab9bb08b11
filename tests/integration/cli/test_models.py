"""Models, tokens and records from the command line, against a real server."""

import json
from pathlib import Path

import pytest

from podium.resources.kinds import KINDS
from tests.integration.api.server import TESTER, ApiServer, deployment
from tests.integration.cli.conftest import Podium


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    (made / "podium.yaml").write_text("class: model:Model\n")
    (made / "model.py").write_text("import math\n")
    return made


def test_push_says_the_version_and_the_same_bytes_are_one_version(podium: Podium, folder: Path) -> None:
    about = ["--metric", "auc=0.93", "--alias", "champion", "--version-note", "a note"]
    first = podium("model", "push", "churn", str(folder), *about)
    assert first.out.startswith("churn version 1 (sha256:")
    assert "pushing churn: looking at the files" in first.err
    again = podium("model", "push", "churn", str(folder), "--metric", "auc=0.93")
    assert again.out.startswith("churn: already version 1 (sha256:")
    shown = podium("model", "show", "churn", "@champion").out
    assert "a note" in shown
    assert "auc=0.93" in shown
    assert "model.py" in shown
    version = podium("model", "show", "churn", "1", "-o", "json").json()
    KINDS["ModelVersion"].parse(version)


def test_push_keeps_lineage_requirements_and_fingerprints(
    podium: Podium, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "data.csv").write_text("a,b\n1,2\n")
    (tmp_path / "lineage.yaml").write_text("run: 7\n")
    (tmp_path / "requirements.txt").write_text("# what it needs\nscikit-learn==1.5.0 # pinned\n\n")
    podium(
        "model", "push", "churn", str(folder), "--dataset", "data.csv", "--lineage", "lineage.yaml",
        "--requirements", "requirements.txt", "--requirement", "numpy>=1", "--python", "3.11",
    )  # fmt: skip
    manifest = podium("model", "show", "churn", "1", "-o", "json").json()["spec"]["manifest"]
    assert [item["name"] for item in manifest["datasets"]] == ["data.csv"]
    assert manifest["lineage"]["run"] == 7
    assert any(text.startswith("scikit-learn") for text in manifest["requirements"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--metric", "auc"], "--metric: expected NAME=NUMBER"),
        (["--metric", "auc=nan"], "--metric: auc: expected a number such as auc=0.93, got 'nan'"),
        (["--metric", "a=1", "--metric", "a=2"], "--metric: a: expected once, got twice"),
        (["--lineage", "nosuch.json"], "--lineage: nosuch.json: no such file"),
        (["--requirements", "bad.txt"], "bad.txt, line 2: expected a requirement"),
        (["--dataset", "nosuch.csv"], "datasets: nosuch.csv is no file"),
        (["--alias", "Not-A-Name"], "alias: expected 1 to 53 lower-case"),
        (["--python", "2.7"], "python: "),
        (["--flavor", "magic"], "flavor: "),
    ],
)
def test_what_is_wrong_with_a_push_is_named(
    podium: Podium, folder: Path, tmp_path: Path, arguments: list[str], words: str
) -> None:
    (tmp_path / "bad.txt").write_text("numpy\n-r other.txt\n")
    assert words in podium("model", "push", "churn", str(folder), *arguments, code=1).err
    assert podium("model", "list", "-o", "json").json() == {"items": []}


def test_list_show_diff_alias(podium: Podium, churn: ApiServer) -> None:
    assert "champion=1" in podium("model", "list").out
    assert [
        item["spec"]["version"] for item in podium("model", "list", "churn", "-o", "json").json()["items"]
    ] == ["1", "2"]
    assert "@champion is version 1" in podium("model", "show", "churn").out
    told = podium("model", "diff", "churn", "@champion", "2")
    assert "~ files[model.py]: " in told.out
    assert "podium.yaml" not in told.out
    assert "are the same" in podium("model", "diff", "churn", "1", "1").out
    assert podium("model", "alias", "churn", "champion", "2").out == "churn@champion is version 2\n"
    assert podium("model", "alias", "churn", "next", "@champion").out == "churn@next is version 2\n"
    history = podium("model", "alias", "churn", "champion", "-o", "json").json()
    assert [move["version"] for move in history["history"]] == ["2", "1"]
    assert "no alias next any more" in podium("model", "alias", "churn", "next", "--remove").out
    assert "aliases: @champion" in podium("model", "show", "churn", "@nosuch", code=1).err


def test_verify_finds_a_flipped_bit(podium: Podium, churn: ApiServer) -> None:
    assert podium("model", "verify", "churn", "1").out == "churn.1 intact\n"
    sha = podium("model", "show", "churn", "1", "-o", "json").json()["spec"]["manifest"]["files"][0]["sha256"]
    [path] = [path for path in (churn.home / "blobs").rglob(f"*{sha[-20:]}*") if path.is_file()]
    path.chmod(0o600)
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)
    result = podium("model", "verify", "churn", code=1)
    assert "churn.1 damaged" in result.out
    assert "churn.2 intact" in result.out
    assert "damaged" in podium("model", "list", "churn").out


def test_pull_is_byte_for_byte_and_never_over_something(podium: Podium, folder: Path, tmp_path: Path) -> None:
    podium("model", "push", "churn", str(folder), "--alias", "champion")
    podium("model", "pull", "churn", "@champion")
    assert (tmp_path / "churn-champion" / "model.py").read_bytes() == (folder / "model.py").read_bytes()
    assert "not an empty folder" in podium("model", "pull", "churn", "1", "churn-champion", code=1).err


def test_delete_is_refused_while_an_alias_points_there(podium: Podium, churn: ApiServer) -> None:
    assert "alias champion" in podium("model", "delete", "churn", "@champion", code=1).err
    assert podium("model", "delete", "churn", "2").out == "churn version 2 deleted\n"
    assert "version 1" in podium("model", "delete", "churn", code=1).err


def test_import_passes_on_what_the_server_says(podium: Podium) -> None:
    result = podium("model", "import", "churn", "models:/churn/3", code=1)
    assert "importing churn: fetching models:/churn/3" in result.err
    assert "uri: there is no MLflow here" in result.err


def test_a_token_is_shown_once_and_works_until_it_is_revoked(
    podium: Podium, churn: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = podium("token", "create", "ci", "--role", "view", "--lifetime", "1h")
    token = made.out.strip()
    assert token.count(".") == 2
    assert token not in made.err
    listed = podium("token", "list")
    assert "ci" in listed.out
    assert token not in listed.out
    [row] = [row for row in podium("token", "list", "-o", "json").json()["items"] if row["subject"] == "ci"]
    with monkeypatch.context() as other:
        other.setenv("PODIUM_TOKEN", token)
        assert podium("get", "models", "-o", "json").json()["items"]
        assert "needs the role" in podium("token", "list", code=1).err
    podium("token", "revoke", row["id"])
    monkeypatch.setenv("PODIUM_TOKEN", token)
    assert "was revoked" in podium("get", "models", code=1).err


def test_a_token_for_one_deployment_is_rotated(podium: Podium, folder: Path) -> None:
    podium("model", "push", "churn", str(folder))
    podium("apply", "-f", "-", stdin=json.dumps(deployment("churn")))
    what = ("--role", "predict", "--deployment", "churn", "--verb", "predict")
    issued = podium("token", "create", "job", *what, "-o", "json").json()
    token_id = issued["info"]["id"]
    assert issued["info"]["deployments"] == ["default/churn"]
    assert "default/churn (predict only)" in podium("token", "list").out
    told = podium("token", "rotate", token_id, "--overlap", "5m")
    assert told.out.strip().count(".") == 2
    assert told.out.strip() not in (issued["token"], told.err)
    assert f"The old one, {token_id}, ends" in told.err
    shown = podium("token", "show", token_id)
    for words in ("deployments   default/churn", "verbs         predict", "rotated, ends", "rotated to"):
        assert words in shown.out, words
    successor = podium("token", "show", token_id, "-o", "json").json()["rotatedTo"]
    assert podium("token", "show", successor, "-o", "json").json()["rotatedFrom"] == token_id
    assert "took its place" in podium("token", "rotate", token_id, code=1).err
    assert (
        "deployments[0]"
        in podium("token", "create", "x", "--role", "predict", "--deployment", "no", code=1).err
    )
    assert (
        "deployments" in podium("token", "create", "x", "--role", "edit", "--deployment", "churn", code=1).err
    )


def test_a_tokens_claims_are_shown(podium: Podium) -> None:
    issued = podium(
        "token",
        "create",
        "app",
        "--role",
        "predict",
        "--claim",
        "user=u-17",
        "--claim",
        "tier=a=b",
        "-o",
        "json",
    ).json()
    assert issued["info"]["claims"] == {"user": "u-17", "tier": "a=b"}
    assert "tier=a=b, user=u-17" in podium("token", "list").out
    assert "tier=a=b, user=u-17" in podium("token", "show", issued["info"]["id"]).out
    for claim, words in (
        (["tier"], "--claim: expected NAME=VALUE, got 'tier'"),
        (["tier=a", "--claim", "tier=b"], "--claim: tier: expected once, got twice"),
        (["tier="], "--claim: tier: expected a value, got nothing"),
        (["sub=root"], "sub: it has a meaning of its own, as have sub, role, jti"),
    ):
        assert words in podium("token", "create", "x", "--role", "predict", "--claim", *claim, code=1).err


def test_what_is_wrong_with_a_token_is_named(podium: Podium) -> None:
    assert "role: " in podium("token", "create", "ci", "--role", "king", code=1).err
    assert "lifetime: " in podium("token", "create", "ci", "--role", "view", "--lifetime", "900d", code=1).err
    assert (
        "there is no workspace nosuch"
        in podium("token", "create", "ci", "--role", "view", "-w", "nosuch", code=1).err
    )


def test_events_and_audit(podium: Podium, churn: ApiServer) -> None:
    podium("apply", "-f", "-", stdin=json.dumps(deployment("churn")))
    with churn.store.write(TESTER) as tx:
        found = tx.get("Deployment", "default", "churn")
        tx.event(found, "Normal", "First", "one")
        tx.event(found, "Warning", "Second", "two\nlines")
    told = podium("events", "--for", "deployment/churn").out.splitlines()
    assert [line.split()[2] for line in told[1:]][-2:] == ["First", "Second"]
    assert "two lines" in told[-1]
    assert [row["reason"] for row in podium("events", "-n", "1", "-o", "json").json()["items"]] == ["Second"]
    assert podium("events", "--for", "model", "-o", "json").json() == {"items": []}
    audit = podium("audit", "--for", "deployment/churn", "-o", "json").json()["items"]
    assert audit[-1]["kind"] == "Deployment"
    assert "unknown kind" in podium("events", "--for", "gizmo/x", code=1).err
    podium("token", "create", "ci", "--role", "view")
    assert podium("audit", "--for", "token", "-o", "json").json()["items"]


def test_logs_of_all_replicas_and_of_one(podium: Podium, churn: ApiServer) -> None:
    podium("apply", "-f", "-", stdin=json.dumps(deployment("churn")))
    churn.logs.written["default", "churn"] = {"r-1": ["a", "b\x1b[2J"], "r-2": ["c"]}
    assert podium("logs", "churn").out.splitlines() == ["r-1 a", "r-1 b\N{REPLACEMENT CHARACTER}[2J", "r-2 c"]
    found = podium("logs", "churn", "--replica", "r-1", "-n", "1", "-o", "json").json()
    assert found == {"items": [{"replica": "r-1", "lines": ["b\x1b[2J"]}]}
    assert "there is no replica r-9" in podium("logs", "churn", "--replica", "r-9", code=1).err


def test_status_of_a_server_elsewhere(podium: Podium, churn: ApiServer) -> None:
    podium("apply", "-f", "-", stdin=json.dumps(deployment("churn")))
    told = podium("status").out
    assert f"server     {churn.url}  ready, version 0.0-test" in told
    assert "churn" in told.splitlines()[-1]
    found = podium("status", "-o", "json").json()
    assert found["server"]["ready"] is True
    assert found["processes"] == {}
    assert [item["metadata"]["name"] for item in found["deployments"]] == ["churn"]
