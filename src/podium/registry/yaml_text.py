"""YAML from strangers: small, shallow, without tricks.

Called by the formats for MLmodel, conda.yaml, python_env.yaml and podium.yaml. Only plain data comes out (safe
loading); size, depth and the size after following aliases are bounded before anything is built, and a key that stands
there twice is an error instead of a silent choice.
"""

from typing import Any

import yaml

from podium.resources.errors import InvalidInput, Issue

MAX_DEPTH = 40
MAX_NODES = 100_000
# The C parser is some ten times as fast; both give the same events and nodes.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parse_yaml(content: bytes, name: str) -> dict[str, Any]:
    """The document as a dictionary with text keys. Raises InvalidInput naming the file (and the line, where known)."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise _refused(name, "expected UTF-8 text") from None
    try:
        _check_depth(text, name)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                raise _refused(name, "the file is empty")
            _check_size(node, name, {}, set())
            value = loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        where = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise _refused(name + where, f"not YAML: {str(error.problem)[:200]}") from None
    except yaml.YAMLError:
        raise _refused(name, "not YAML: characters that it does not allow") from None
    except (ValueError, TypeError, OverflowError) as error:
        # A number or date that looks right to YAML's grammar and is not, or a key that is a list.
        raise _refused(name, f"a value cannot be read: {str(error)[:100]}") from None
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise _refused(name, "expected keys and values")
    return value


def _check_depth(text: str, name: str) -> None:
    """Walks the parser's events, which needs no recursion, before anything that does."""
    depth = 0
    for nodes, event in enumerate(yaml.parse(text, Loader=_Loader)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise _refused(name, f"expected at most {MAX_DEPTH} levels")
        if nodes > 2 * MAX_NODES:
            raise _refused(name, f"expected at most {MAX_NODES} values")


def _check_size(node: Any, name: str, sizes: dict[int, int], above: set[int]) -> int:
    """How many values the node holds with every alias followed, each node looked at once."""
    if id(node) in above:
        raise _refused(name, "a value contains itself")
    if id(node) in sizes:
        return sizes[id(node)]
    above.add(id(node))
    total = 1
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = (
            next((key for key in keys if keys.count(key) > 1), None) if len(keys) != len(set(keys)) else None
        )
        if twice is not None:
            raise _refused(name, f"the key {twice[:60]!r} stands there twice")
        for key, value in node.value:
            total += _check_size(key, name, sizes, above) + _check_size(value, name, sizes, above)
    elif isinstance(node, yaml.SequenceNode):
        total += sum(_check_size(item, name, sizes, above) for item in node.value)
    above.discard(id(node))
    if total > MAX_NODES:
        raise _refused(name, f"expected at most {MAX_NODES} values, aliases followed")
    sizes[id(node)] = total
    return total


def _refused(field: str, words: str) -> InvalidInput:
    return InvalidInput(Issue(field, words))
