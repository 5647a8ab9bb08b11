"""Conditions in CEL, as Envoy takes them: not as text but as the tree of an expression. Called by `access`.

Envoy leaves out CEL's loops and string concatenation; what is here is all that is used.
"""

import datetime
from typing import Any

Expression = dict[str, Any]


def metadata(namespace: str, *path: str) -> Expression:
    """`metadata.filter_metadata[namespace][path]...`: what filters noted about the request."""
    found: Expression = {"select_expr": {"operand": _name("metadata"), "field": "filter_metadata"}}
    for key in (namespace, *path):
        found = _call("_[_]", found, text(key))
    return found


def text(value: str) -> Expression:
    """The text itself."""
    return {"const_expr": {"string_value": value}}


def is_in(element: Expression, elements: Expression) -> Expression:
    """`element in elements`"""
    return _call("@in", element, elements)


def either(first: Expression, *others: Expression) -> Expression:
    """`first || ...`. True also where another part is an error, such as a note that is missing."""
    for other in others:
        first = _call("_||_", first, other)
    return first


def since(at: datetime.datetime) -> Expression:
    """`request.time >= at`, to the second."""
    moment = at.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    begun: Expression = {"select_expr": {"operand": _name("request"), "field": "time"}}
    return _call("_>=_", begun, {"const_expr": {"timestamp_value": moment}})


def condition(expression: Expression) -> Expression:
    """The expression as a policy's `condition`: with a number at every node, which CEL wants."""
    return _numbered(expression, [0])


def _name(name: str) -> Expression:
    return {"ident_expr": {"name": name}}


def _call(function: str, *arguments: Expression) -> Expression:
    return {"call_expr": {"function": function, "args": list(arguments)}}


def _numbered(expression: Expression, last: list[int]) -> Expression:
    last[0] += 1
    numbered: Expression = {"id": last[0]}
    for kind, content in expression.items():
        match kind:
            case "select_expr":
                numbered[kind] = {**content, "operand": _numbered(content["operand"], last)}
            case "call_expr":
                numbered[kind] = {**content, "args": [_numbered(one, last) for one in content["args"]]}
            case _:
                numbered[kind] = content
    return numbered
