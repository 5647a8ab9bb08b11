"""Requirements as text into PEP 508, and what is refused: whatever is not a name with versions.

Called by `intake` and the formats. What passes here is handed to a resolver on the server, so that addresses, paths and
options must not get through: they would make the server fetch or read what a stranger names.
"""

import re
from collections.abc import Iterable, Sequence

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from podium.resources.errors import InvalidInput, Issue

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_MOST = 500


def parse(text: str, field: str) -> Requirement:
    """One requirement. Raises InvalidInput naming `field`."""
    text = text.strip()
    if len(text) > 1024 or _CONTROL.search(text):
        raise _refused(field, text, "expected one line of at most 1024 characters")
    if text.startswith("-"):
        raise _refused(field, text, "options are not allowed here, only a package's name and versions")
    if (
        "://" in text
        or re.match(r"[./~\\]|file:|[A-Za-z]:\\", text)
        or re.search(r"\.(whl|zip|tar\.gz|tgz)$", text)
    ):
        raise _refused(field, text, "addresses and paths are not allowed, only a package's name and versions")
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        words = str(error).splitlines()[0][:200]
        raise _refused(field, text, f"not a requirement by PEP 508 ({words})") from None
    if requirement.url is not None:
        raise _refused(field, text, "addresses and paths are not allowed, only a package's name and versions")
    return requirement


def parse_all(texts: Sequence[str], field: str) -> list[Requirement]:
    """Requirements of a request; the field of each is `field[index]`. Raises InvalidInput naming every wrong one."""
    found, issues = [], []
    for index, text in enumerate(texts):
        try:
            found.append(parse(text, f"{field}[{index}]"))
        except InvalidInput as error:
            issues += error.issues
    if issues:
        raise InvalidInput(issues[:20])
    return found


def parse_file(text: str, name: str) -> list[Requirement]:
    """Lines of a requirements.txt; the field of each is `name:line`. Raises InvalidInput naming every wrong one."""
    found, issues = [], []
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = re.sub(r"(^|\s)#.*$", "", line).strip()
        if not stripped:
            continue
        try:
            found.append(parse(stripped, f"{name}:{number}"))
        except InvalidInput as error:
            issues += error.issues
    if issues:
        raise InvalidInput(
            issues[:20],
            next_step="leave these lines out of the file; Podium resolves and pins the versions itself",
        )
    if len(found) > _MOST:
        raise InvalidInput(Issue(name, f"expected at most {_MOST} requirements"))
    return found


def merge(own: Iterable[Requirement], given: Iterable[Requirement]) -> list[str]:
    """The model's own requirements with the pusher's: one for the same package takes the place of the model's own.

    Written in one way, in alphabetical order, each once.
    """
    given = list(given)
    replaced = {canonicalize_name(requirement.name) for requirement in given}
    kept = [requirement for requirement in own if canonicalize_name(requirement.name) not in replaced]
    texts = {}
    for requirement in [*kept, *given]:
        requirement.name = canonicalize_name(requirement.name)
        texts[str(requirement)] = requirement.name
    return sorted(texts, key=lambda text: (texts[text], text))


def has(requirements: Iterable[Requirement], *names: str) -> bool:
    """Is one of these packages (canonical names) among the requirements?"""
    return any(canonicalize_name(requirement.name) in names for requirement in requirements)


def _refused(field: str, text: str, why: str) -> InvalidInput:
    shown = _CONTROL.sub("?", text[:80])
    return InvalidInput(Issue(field, f"{shown!r}: {why}"))
