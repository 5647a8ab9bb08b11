"""Reads what a person wrote: YAML or JSON, from files, folders or stdin, one or many documents each.

Called by apply, diff and delete. Everything is read and checked before anything is sent: one wrong document, and
nothing happens. Errors name file, document and field.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from podium.resources.errors import InvalidInput, Issue

if TYPE_CHECKING:
    from podium.resources.kinds import AnyResource

SUFFIXES = (".yaml", ".yml", ".json")
MAX_BYTES = 8 * 2**20
MAX_DEPTH = 40
MAX_VALUES = 200_000
_ORDER = ("Workspace", "Model", "Deployment")


@dataclass(frozen=True)
class Document:
    """One object that a person wrote, as data, and the same checked."""

    source: str
    """Where it stands: `churn.yaml` or, of several in one file, `churn.yaml, document 2`."""
    data: dict[str, Any]
    resource: "AnyResource"

    @property
    def label(self) -> str:
        """`Deployment churn`."""
        return f"{self.resource.kind} {self.resource.metadata.name}"


def read(paths: Sequence[str], workspace: str | None = None) -> list[Document]:
    """All documents, checked, with what others refer to first. `-` is stdin; a folder's files are read by name.

    Raises InvalidInput with an issue for every wrong field of every document.
    """
    documents: list[Document] = []
    issues: list[Issue] = []
    for source, data in _parsed(paths):
        try:
            documents.append(_check(source, data, workspace))
        except InvalidInput as error:
            issues += [Issue(_place(source, issue.field), issue.message) for issue in error.issues]
    if issues:
        raise InvalidInput(
            issues, next_step="nothing was changed; `podium schema KIND` shows what a kind has"
        )
    if not documents:
        raise InvalidInput(Issue(", ".join(paths) or "-f", "expected at least one document, found none"))
    _check_twice(documents)
    return sorted(documents, key=_rank)


def _rank(document: Document) -> int:
    kind = document.resource.kind
    return _ORDER.index(kind) if kind in _ORDER else len(_ORDER)


def _place(source: str, field: str) -> str:
    return source if field == "body" else f"{source}: {field}"


def _check(source: str, data: object, workspace: str | None) -> Document:
    from podium.resources.kinds import parse_applied

    if isinstance(data, dict) and "kind" in data:
        _check_json(data)
    resource = parse_applied(data, workspace=workspace)
    # `parse_applied` takes nothing but an object.
    return Document(source, dict(data), resource)  # type: ignore[call-overload]


def _check_twice(documents: Sequence[Document]) -> None:
    seen: dict[tuple[str, str], Document] = {}
    for document in documents:
        key = (document.resource.kind, document.resource.key)
        if key in seen:
            raise InvalidInput(
                Issue(document.source, f"{document.label} stands in {seen[key].source} as well"),
                next_step="nothing was changed; keep one of them",
            )
        seen[key] = document


def _parsed(paths: Sequence[str]) -> Iterator[tuple[str, object]]:
    for path in paths:
        if path == "-":
            yield from _parse("stdin", sys.stdin.buffer.read(MAX_BYTES + 1))
            continue
        for file in _files(Path(path)):
            yield from _parse(str(file), _content(file))


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file())
    if not found:
        raise InvalidInput(
            Issue(str(path), f"a folder without {', '.join('*' + suffix for suffix in SUFFIXES)}")
        )
    return found


def _content(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise InvalidInput(
            Issue(str(file), "no such file or folder"), next_step="-f takes a file, a folder, or - for stdin"
        ) from None


def _parse(source: str, content: bytes) -> Iterator[tuple[str, object]]:
    """Every document of one text; `{"items": [...]}`, as `get -o json` prints it, is as many as it holds."""
    if len(content) > MAX_BYTES:
        raise InvalidInput(Issue(source, f"expected at most {MAX_BYTES // 2**20} MiB"))
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidInput(Issue(source, "expected UTF-8 text")) from None
    documents = [document for document in _load(source, text) if document is not None]
    for number, document in enumerate(documents, start=1):
        name = f"{source}, document {number}" if len(documents) > 1 else source
        if isinstance(document, dict) and "kind" not in document and isinstance(document.get("items"), list):
            for index, item in enumerate(document["items"]):
                yield f"{name}, items[{index}]", item
        else:
            yield name, document


def _load(source: str, text: str) -> list[object]:
    import yaml

    try:
        _check_events(source, text)
        found = []
        loader = _loader()(text)
        try:
            while loader.check_data():
                found.append(loader.get_data())
        finally:
            loader.dispose()
        return found
    except yaml.MarkedYAMLError as error:
        where = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InvalidInput(Issue(source + where, f"not YAML or JSON: {str(error.problem)[:200]}")) from None
    except yaml.YAMLError:
        raise InvalidInput(Issue(source, "not YAML: it holds characters that YAML does not allow")) from None
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidInput(Issue(source, f"a value cannot be read: {str(error)[:100]}")) from None


def _check_events(source: str, text: str) -> None:
    """Depth and number of values by the parser's events, before anything is built that needs recursion."""
    import yaml

    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise InvalidInput(Issue(source, f"expected at most {MAX_DEPTH} levels"))
        if count > MAX_VALUES:
            raise InvalidInput(Issue(source, f"expected at most {MAX_VALUES} values"))


def _loader() -> Any:
    """The safe loader, which also refuses a key that stands twice in one object: the last would silently win."""
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc]
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            twice = next((key for key in dict.fromkeys(keys) if keys.count(key) > 1), None)
            if twice is not None:
                mark = node.start_mark
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {twice[:60]!r} stands there twice", mark
                )
            return super().construct_mapping(node, deep=deep)

    return Loader


def _check_json(document: object) -> None:
    """Only what JSON can say, and not more of it than was written: aliases can make a small text a huge document."""
    pending: list[tuple[str, object]] = [("", document)]
    issues: list[Issue] = []
    count = 0
    while pending:
        path, value = pending.pop()
        count += 1
        if count > MAX_VALUES or path.count(".") > MAX_DEPTH:
            raise InvalidInput(Issue("body", f"expected at most {MAX_VALUES} values, aliases followed"))
        if isinstance(value, dict):
            for key, child in value.items():
                if not isinstance(key, str):
                    words = (
                        f"expected a text as the key, got {key!r} ({type(key).__name__}): put it in quotes"
                    )
                    issues.append(Issue(path or "body", words))
                else:
                    pending.append((f"{path}.{key}" if path else key, child))
        elif isinstance(value, list):
            pending.extend((f"{path}[{index}]", child) for index, child in enumerate(value))
        elif value is not None and not isinstance(value, str | int | float | bool):
            words = f"YAML reads this as a {type(value).__name__}: put it in quotes"
            issues.append(Issue(path, words))
        elif isinstance(value, float) and value - value != 0:
            issues.append(Issue(path, "expected a finite number"))
    if issues:
        raise InvalidInput(issues)
