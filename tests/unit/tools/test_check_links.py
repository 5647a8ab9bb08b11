"""The link checker: what it finds, and what it rightly leaves alone."""

from pathlib import Path

import pytest

from tools import check_links


def faults(root: Path) -> list[str]:
    """`file:line target: reason` of every bad link below `root`."""
    return [
        f"{path.name}:{number} {target}: {fault}"
        for path in check_links.markdown_files(root)
        for number, target in check_links.targets(path)
        if (fault := check_links.fault_of(path, target, root))
    ]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "guide.md").write_text(
        '# The `guide`, in short\n## Twice\n## Twice\n<a id="by-hand"></a>\n'
    )
    (tmp_path / "code.py").write_text("pass\n")
    return tmp_path


@pytest.mark.parametrize(
    "link",
    [
        "docs/guide.md",
        "docs",
        "./docs/../code.py",
        "docs/guide.md#the-guide-in-short",
        "docs/guide.md#twice",
        "docs/guide.md#twice-1",
        "docs/guide.md#by-hand",
        "code.py#L1",
        "#here",
        "https://example.org/#nowhere",
        "mailto:a@example.org",
    ],
)
def test_a_link_that_leads_somewhere_is_fine(root: Path, link: str) -> None:
    (root / "README.md").write_text(f"# Here\n\n[text]({link})\n")
    assert len(check_links.targets(root / "README.md")) == 1
    assert faults(root) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a](gone.md)", "gone.md: no such file"),
        ("![a](gone.svg)", "gone.svg: no such file"),
        ("[a](docs/guide.md#thrice)", "docs/guide.md#thrice: no such heading"),
        ("[a](docs/guide.md#twice-2)", "docs/guide.md#twice-2: no such heading"),
        ("[a](#there)", "#there: no such heading"),
        ("[a](../outside.md)", "../outside.md: leads out of the repository"),
        ("[a](/etc/passwd)", "/etc/passwd: an absolute path; expected one relative to the file"),
        ("[a](code.py#part)", "code.py#part: an anchor into a file that has no headings"),
        ("[ref]: gone.md", "gone.md: no such file"),
        ('<a href="gone.md">x</a>', "gone.md: no such file"),
        ("[![badge](gone.svg)](docs)", "gone.svg: no such file"),
        ("[![badge](docs)](gone.md)", "gone.md: no such file"),
    ],
)
def test_a_link_that_leads_nowhere_is_named_with_its_line(root: Path, text: str, expected: str) -> None:
    (root / "README.md").write_text(f"# Here\n\n{text}\n")
    assert faults(root) == [f"README.md:3 {expected}"]


def test_code_is_no_link(root: Path) -> None:
    (root / "README.md").write_text("# Here\n\n`[a](gone.md)`\n\n```\n# [a](gone.md)\n```\n")
    assert faults(root) == []
    assert check_links.anchors(root / "README.md") == {"here"}


def test_hidden_folders_are_others_business(root: Path) -> None:
    (root / ".venv").mkdir()
    (root / ".venv" / "x.md").write_text("[a](gone.md)")
    assert faults(root) == []
