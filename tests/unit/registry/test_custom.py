"""Files for another server: kept because the pusher says so, never because they look like something."""

from collections.abc import Callable

import pytest

from podium.registry.intake import Draft
from podium.resources.errors import InvalidInput

Read = Callable[..., Draft]
YAML = b'flavor: custom\nrequirements: ["mlserver==1.7.1"]\npython: "3.12"\n'
SIGNATURE = b"signature: {inputs: [{name: x, datatype: FP64, shape: [-1, 4]}], outputs: []}\n"


def test_a_folder_says_that_it_is_for_another_server(read: Read) -> None:
    """Whatever else lies in it: these would be models of three flavors."""
    files = {
        "podium.yaml": YAML,
        "model.onnx": b"\x08\x07",
        "model.joblib": b"\x80\x04.",
        "MLmodel": b"flavors: {}\n",
    }
    found = read(files, requirements=["numpy<3"])
    assert (found.flavor.name, found.flavor.entry, found.flavor.options) == ("custom", "", {})
    assert found.requirements == ("mlserver==1.7.1", "numpy<3")
    assert (found.python, found.signature) == ("3.12", None)
    assert "spec.runtime.command" in found.notes[0]


def test_its_signature_is_what_it_says(read: Read) -> None:
    found = read({"podium.yaml": b"flavor: custom\n" + SIGNATURE})
    assert found.signature is not None
    assert found.signature.inputs[0].shape == [-1, 4]
    assert found.requirements == ()


def test_the_pusher_can_say_it_too(read: Read) -> None:
    found = read({"config.pbtxt": b"x", "1/model.bin": b"y"}, flavor="custom", requirements=["six"])
    assert (found.flavor.name, found.requirements, found.python) == ("custom", ("six",), "3.11")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"flavor: tensorflow\n", r"podium.yaml: flavor.*'tensorflow' is unknown; known: .*custom"),
        (b"flavor: [custom]\n", "is unknown; known"),
        (
            b"flavor: custom\nclass: a:B\n",
            "podium.yaml: class.*unknown with flavor custom; known: flavor, python",
        ),
        (b"flavor: custom\ncommand: rm\n", "podium.yaml: command"),
        (b"flavor: custom\nrequirements: six\n", "podium.yaml: requirements.*expected a list"),
        (b"flavor: custom\nrequirements: ['https://x/y']\n", "addresses and paths are not allowed"),
        (b"flavor: custom\npython: 3.1\n", "podium.yaml: python.*in quotes"),
        (b"flavor: custom\nsignature: {inputs: [{name: x}]}\n", "podium.yaml: signature"),
    ],
)
def test_what_is_wrong_is_named(read: Read, content: bytes, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        read({"podium.yaml": content, "model.bin": b"x"})


def test_files_alone_are_never_taken_for_it(read: Read) -> None:
    with pytest.raises(InvalidInput, match=r"no known model.*flavor: custom"):
        read({"config.pbtxt": b"x", "1/model.bin": b"y"})
