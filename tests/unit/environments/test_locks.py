"""What may stand in a requirement and in a lock."""

import zipfile
from pathlib import Path

import pytest

from podium.environments.locks import check_lock, check_requirements, wheel_requirements
from podium.resources.errors import IntegrityError, InvalidInput, Unavailable

HASH = "    --hash=sha256:" + "a" * 64


def test_names_and_versions_are_fine() -> None:
    check_requirements(
        ["numpy", "scikit-learn>=1.5,<2", "pandas[parquet]==2.2.*", "x; python_version < '3.12'"]
    )


@pytest.mark.parametrize(
    "hostile",
    [
        "-r /etc/passwd", "--index-url https://evil.example/simple", "-e .", "./local", "/srv/evil.whl", "",
        "evil @ https://evil.example/evil", "evil @ file:///srv/evil", "git+https://evil.example/x",
        "numpy\n--index-url https://evil.example/simple", "numpy --hash=sha256:00", "numpy # comment\n-e .", "a b",
        "$(touch x)", "numpy;", "numpy\x00", "numpy\r-r x", "-c constraints.txt", "https://evil.example/x",
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_its_place(hostile: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_requirements(["numpy", hostile])
    assert [issue.field for issue in refused.value.issues] == ["requirements[1]"]


def test_every_wrong_line_is_named() -> None:
    with pytest.raises(InvalidInput) as refused:
        check_requirements(["-e .", "six", "./x"])
    assert [issue.field for issue in refused.value.issues] == ["requirements[0]", "requirements[2]"]


def test_a_lock_of_pins_is_fine() -> None:
    check_lock(
        f"six==1.17.0 \\\n{HASH} \\\n{HASH}\nx==1.0+cpu ; sys_platform == 'linux' \\\n{HASH}\n# note\n\n"
    )


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://evil.example/simple", "-e .", "evil @ file:///tmp/evil", "six", "six>=1",
        "six==1.0 --hash=md5:00", "./evil.whl", "    --hash=sha256:short", "-r other.txt", "six==1.0 ; x @ y",
    ],
)  # fmt: skip
def test_a_lock_with_other_sources_is_refused(line: str) -> None:
    with pytest.raises(IntegrityError, match="line 3"):
        check_lock(f"six==1.17.0 \\\n{HASH}\n{line}\n")


def test_a_damaged_wheel_is_said_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.whl").write_bytes(b"no zip")
    with pytest.raises(Unavailable, match=r"a\.whl"):
        wheel_requirements(tmp_path / "a.whl")
    with zipfile.ZipFile(tmp_path / "b.whl", "w") as archive:
        archive.writestr("nothing", "")
    with pytest.raises(Unavailable, match=r"b\.whl"):
        wheel_requirements(tmp_path / "b.whl")
