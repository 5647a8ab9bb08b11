"""Checks that every relative link in the repository's Markdown leads somewhere: the file, and the heading in it.

`make check` calls it, without arguments. It needs no network: addresses with a scheme are left alone. Headings get
their anchors by GitHub's rule (lower case, punctuation dropped, spaces to hyphens, repeated ones numbered).
"""

import re
import sys
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parent.parent
_SKIPPED = {"node_modules", "dist", "build"}
_FENCE = re.compile(r"^\s*(```|~~~)")
_CODE = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)")
# From the bracket on that closes the text, so that a picture inside a link's text is found too.
_INLINE = re.compile(r"\]\(\s*<?([^()\s<>]+(?:\([^()\s<>]*\)[^()\s<>]*)*)>?(?:\s+\"[^\"]*\")?\s*\)")
_REFERENCE = re.compile(r"^\s{0,3}\[[^\]]+\]:\s+<?(\S+?)>?(?:\s+\"[^\"]*\")?\s*$")
_HTML = re.compile(r"<(?:a|img)\b[^>]*?\b(?:href|src)=\"([^\"]+)\"", re.IGNORECASE)
_ID = re.compile(r"<[a-z][^>]*?\b(?:id|name)=\"([^\"]+)\"", re.IGNORECASE)
_HEADING = re.compile(r"^\s{0,3}#{1,6}\s+(.*?)\s*#*\s*$")
_LINE_ANCHOR = re.compile(r"L\d+(-L\d+)?")


def markdown_files(root: Path) -> list[Path]:
    """Every .md below `root`, but for hidden folders and what others built."""
    return sorted(
        path
        for path in root.rglob("*.md")
        if not any(part.startswith(".") or part in _SKIPPED for part in path.relative_to(root).parts[:-1])
    )


def prose(path: Path) -> list[tuple[int, str]]:
    """(line number, text) of the lines outside fenced code."""
    lines, fence = [], ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if match := _FENCE.match(line):
            fence = "" if fence == match[1] else fence or match[1]
        elif not fence:
            lines.append((number, line))
    return lines


def anchors(path: Path) -> set[str]:
    """The anchors that a reader can link to in one Markdown file."""
    found: set[str] = set()
    seen: dict[str, int] = {}
    for _, line in prose(path):
        found.update(_ID.findall(line))
        if heading := _HEADING.match(line):
            slug = slug_of(heading[1])
            count = seen.get(slug, 0)
            seen[slug] = count + 1
            found.add(f"{slug}-{count}" if count else slug)
    return found


def slug_of(heading: str) -> str:
    """The anchor of a heading by GitHub's rule."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")


def targets(path: Path) -> list[tuple[int, str]]:
    """(line number, target) of every link in one file."""
    found = []
    for number, line in prose(path):
        text = _CODE.sub("", line)
        for pattern in (_INLINE, _REFERENCE, _HTML):
            found += [(number, match) for match in pattern.findall(text)]
    return found


def fault_of(path: Path, target: str, root: Path) -> str | None:
    """Why a link in `path` leads nowhere, or None when it is fine."""
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*:", target):
        return None
    name, _, anchor = unquote(target).partition("#")
    if name.startswith("/"):
        return "an absolute path; expected one relative to the file"
    linked = (path.parent / name).resolve() if name else path
    if not linked.is_relative_to(root):
        return "leads out of the repository"
    if not linked.exists():
        return "no such file"
    if not anchor or (linked.suffix != ".md" and _LINE_ANCHOR.fullmatch(anchor)):
        return None
    if linked.suffix != ".md":
        return "an anchor into a file that has no headings"
    if anchor not in anchors(linked):
        return "no such heading"
    return None


def main() -> int:
    """Entry point: 0 when every link leads somewhere."""
    files = markdown_files(ROOT)
    faults, count = [], 0
    for path in files:
        for number, target in targets(path):
            count += 1
            if fault := fault_of(path, target, ROOT):
                faults.append(f"{path.relative_to(ROOT)}:{number}: {target}: {fault}")
    print("\n".join(faults) or f"links: {count} in {len(files)} Markdown files, all lead somewhere")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
