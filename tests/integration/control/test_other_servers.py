"""Deployments whose server is a command: what they need, and how their ends are understood."""

from typing import Any

import pytest

from tests.integration.control.conftest import USER

pytestmark = pytest.mark.integration

COMMAND = {"command": "serve {port}"}


def test_files_without_a_command_wait_for_one(plant: Any) -> None:
    plant.push(1, flavor="custom")
    plant.apply(model={"name": "churn", "version": 1})
    plant.settle()
    status = plant.get("Deployment", "churn").status
    assert status.phase == "Failed"
    assert "spec.runtime.command: churn version 1 is only files (flavor custom)" in status.message
    assert plant.target.rows == {}
    plant.apply(model={"name": "churn", "version": 1}, runtime=COMMAND)
    plant.settle()
    status = plant.get("Deployment", "churn").status
    assert (status.phase, status.served_version, status.message) == ("Ready", "1", "")


def test_what_is_served_goes_on_when_a_version_lacks_its_command(plant: Any) -> None:
    plant.push(1)
    plant.push(2, flavor="custom")
    plant.apply(model={"name": "churn", "version": 1})
    plant.settle()
    plant.apply(model={"name": "churn", "version": 2})
    plant.settle()
    status = plant.get("Deployment", "churn").status
    assert (status.phase, status.served_version) == ("Ready", "1")
    assert "spec.runtime.command" in status.message


@pytest.mark.parametrize(
    ("code", "damaged", "words"),
    [
        (3, False, "exited with code 3; last"),
        (4, False, "exited with code 4; last"),
        (113, True, "exited with code 113 (stored bytes differ from the manifest)"),
    ],
)
def test_a_commands_exit_codes_are_its_own(plant: Any, code: int, damaged: bool, words: str) -> None:
    """uvicorn, for one, ends with 3 when an application does not start."""
    plant.push(1, flavor="custom")
    plant.apply(model={"name": "churn", "version": 1}, runtime=COMMAND)
    plant.settle()
    plant.target.die("churn-00001-1", code=code)
    revision = plant.get("Revision", "churn-00001")
    with plant.store.write(USER) as tx:
        tx.wake(revision.uid)
    plant.settle()
    assert words in plant.get("Revision", "churn-00001").status.last_exit
    assert bool(plant.preparation.distrusted) == damaged
