"""Requirements: names with versions pass, whatever would make a resolver fetch or read something else does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement

from podium.registry.requirements import merge, parse, parse_all, parse_file
from podium.resources.errors import InvalidInput


@pytest.mark.parametrize(
    "text",
    [
        "--index-url https://evil.example/simple", "-r other.txt", "-e .", "-c constraints.txt", "--no-binary :all:",
        "pkg @ https://evil.example/pkg", "pkg@file:///etc/passwd", "pkg @ local", "pkg@/etc/passwd", "git+https://evil.example/x",
        "https://e.example/x", "./local", "../local", "/abs/pkg.whl", "~/pkg", "pkg.whl",
        "pkg-1.0.tar.gz", "C:\\pkg", "file:pkg",
        "\\\\host\\x", "pkg==1.0\n--index-url https://evil.example",
        "pkg; python_version == '3\n--index-url=x'", "pkg==1.0 --hash=sha256:00",
        "", "!!", "pkg==", "a b", "x" * 1025, "pkg\x00",
    ],
)  # fmt: skip
def test_what_is_not_a_name_with_versions_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as error:
        parse_all(["scikit-learn==1.9.1", text], "requirements")
    assert [issue.field for issue in error.value.issues] == ["requirements[1]"]


@pytest.mark.parametrize(
    "text",
    [
        "scikit-learn==1.9.1",
        "numpy>=1.26,<3",
        "uvicorn[standard]",
        "x ; python_version < '3.12'",
        "a~=1.0",
        "a===1!2.0+cpu",
    ],
)
def test_pep_508_passes(text: str) -> None:
    assert parse(text, "f").name == Requirement(text).name


def test_a_file_is_read_line_by_line() -> None:
    text = "# made by hand\n\nscikit-learn==1.9.1  # pinned\r\nnumpy\n"
    assert [str(found) for found in parse_file(text, "requirements.txt")] == ["scikit-learn==1.9.1", "numpy"]
    with pytest.raises(InvalidInput) as error:
        parse_file("numpy\n-r more.txt\n--index-url x\n", "requirements.txt")
    assert [issue.field for issue in error.value.issues] == ["requirements.txt:2", "requirements.txt:3"]


def test_the_pushers_requirement_takes_the_place_of_the_models_own() -> None:
    own = parse_all(["Scikit_Learn==1.8.0", "numpy", "pandas; python_version<'3.12'", "pandas>=2"], "own")
    given_ = parse_all(["scikit-learn==1.9.1", "joblib"], "given")
    assert merge(own, given_) == [
        "joblib", "numpy", 'pandas; python_version < "3.12"', "pandas>=2", "scikit-learn==1.9.1",
    ]  # fmt: skip


@given(st.permutations(["numpy", "scikit-learn==1.9.1", "pandas>=2", "Pandas>=2"]))
def test_the_order_makes_no_difference(texts: list[str]) -> None:
    assert merge(parse_all(texts, "f"), []) == ["numpy", "pandas>=2", "scikit-learn==1.9.1"]


@given(st.text(max_size=80))
def test_what_passes_is_one_line_without_addresses(text: str) -> None:
    try:
        written = str(parse(text, "f"))
    except InvalidInput:
        return
    assert "\n" not in written
    assert "\r" not in written
    assert "://" not in written
    assert not written.startswith(("-", ".", "/"))
    assert Requirement(written).url is None
