"""Options of a command in groups: a dataclass whose fields are options stands for all of them in a signature.

Called by commands with many options; what it makes goes to `session.command`.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, get_type_hints


def grouped(function: Callable[..., None]) -> Callable[..., None]:
    """`function(session, target, pace: Pace)` as `function(session, target, duration=..., rate=...)`: each field of a
    dataclass among the parameters is an option, as its annotation says, and they are given to the function as one."""
    signature, hints = inspect.signature(function), get_type_hints(function, include_extras=True)
    groups = {name: kind for name, kind in hints.items() if isinstance(kind, type) and is_dataclass(kind)}
    # The first parameter is the session, a dataclass as well.
    own = [name for name in signature.parameters if name in groups][1:]
    taken = [parameter for name, parameter in signature.parameters.items() if name not in own]

    @functools.wraps(function)
    def run(*session: Any, **given: Any) -> None:
        for name in own:
            given[name] = groups[name](**{one.name: given.pop(one.name) for one in fields(groups[name])})
        function(*session, **given)

    options = [_option(groups[name], one) for name in own for one in fields(groups[name])]
    at = list(signature.parameters).index(own[0])
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) if number else parameter
            for number, parameter in enumerate([*taken[:at], *options, *taken[at:]])
        ]
    )
    return run


def _option(group: type[Any], field: Field[Any]) -> inspect.Parameter:
    annotation = get_type_hints(group, include_extras=True)[field.name]
    default = inspect.Parameter.empty if field.default is MISSING else field.default
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )
