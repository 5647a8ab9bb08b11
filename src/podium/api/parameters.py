"""Parameters that several routes have, with the rules that OpenAPI shows; and the refusal of unknown ones.

A misspelt query parameter must not be a silent default: `?labelselector=` would list everything.
"""

from typing import Annotated

from fastapi import Path, Query, Request
from fastapi.dependencies.models import Dependant

from podium.resources.errors import InvalidInput, Issue
from podium.resources.kinds import KINDS

_TEXT = r"^[^\x00-\x1f\x7f]*$"
MAX_VERSION = 2**63 - 1

ObjectName = Annotated[
    str,
    Path(
        pattern="^[a-z0-9]([-a-z0-9.]{0,118}[a-z0-9])?$", description="The object's name.", examples=["churn"]
    ),
]
ModelName = Annotated[
    str, Path(pattern="^[a-z]([-a-z0-9]{0,51}[a-z0-9])?$", description="A model's name.", examples=["churn"])
]
Alias = Annotated[
    str,
    Path(
        pattern="^[a-z]([-a-z0-9]{0,51}[a-z0-9])?$",
        description="An alias of the model.",
        examples=["champion"],
    ),
]
Sha256Path = Annotated[
    str, Path(pattern="^[0-9a-f]{64}$", description="The blob's sha256 in hexadecimal digits.")
]
TokenId = Annotated[
    str, Path(pattern="^[A-Za-z0-9_-]{1,64}$", description="The token's id, as the list shows it.")
]
LabelSelector = Annotated[
    str | None,
    Query(alias="labelSelector", max_length=4096, pattern=_TEXT, description="`a=b,c!=d,e in (x,y),f,!g`"),
]
FieldSelector = Annotated[
    str | None,
    Query(
        alias="fieldSelector", max_length=4096, pattern=_TEXT, description="As `labelSelector`, over fields."
    ),
]
Limit = Annotated[int, Query(ge=1, le=1000, description="Objects per page.")]
Continue = Annotated[
    str | None,
    Query(alias="continue", max_length=1024, pattern=_TEXT, description="`continue` of the page before."),
]
ResourceVersion = Annotated[
    int | None,
    Query(
        alias="resourceVersion",
        ge=0,
        le=MAX_VERSION,
        description="Only if the object is still at this version.",
    ),
]
WorkspaceFilter = Annotated[
    str | None,
    Query(
        pattern="^[a-z]([-a-z0-9]{0,51}[a-z0-9])?$", description="Only this workspace.", examples=["default"]
    ),
]
_KIND = "|".join(KINDS)
KindFilter = Annotated[
    str | None, Query(pattern=f"^({_KIND})$", description="Only this kind.", examples=["Deployment"])
]
RecordedKind = Annotated[
    str | None, Query(pattern=f"^({_KIND}|Token)$", description="Only this kind.", examples=["Deployment"])
]
Kinds = Annotated[
    str | None,
    Query(
        pattern=f"^({_KIND})(,({_KIND}))*$",
        description="Kinds, with commas.",
        examples=["Deployment,Rollout"],
    ),
]
NameFilter = Annotated[
    str | None, Query(max_length=256, pattern=_TEXT, description="Only this name.", examples=["churn"])
]
Before = Annotated[
    int | None, Query(ge=0, le=MAX_VERSION, description="Only older ones: `next` of the page before.")
]


def _known(dependant: Dependant) -> set[str]:
    names = {str(parameter.alias) for parameter in dependant.query_params}
    return names.union(*(_known(inner) for inner in dependant.dependencies))


async def only_known_parameters(request: Request) -> None:
    """A dependency of every route. Raises InvalidInput for a query parameter that the route does not have, or that
    is given twice."""
    given = [name for name, _ in request.query_params.multi_items()]
    if not given:
        return
    known = _known(request.scope["route"].dependant)
    issues = []
    for name in dict.fromkeys(given):
        shown = name[:60].encode("utf-8", "replace").decode()
        if name not in known:
            listed = ", ".join(sorted(known)) or "none"
            issues.append(Issue(shown or "query", f"unknown query parameter; known here: {listed}"))
        elif given.count(name) > 1:
            issues.append(Issue(shown, "given more than once"))
    if issues:
        raise InvalidInput(issues)
