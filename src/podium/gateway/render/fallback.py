"""What is answered when a rule's own Deployment does not: another one, or a declared answer. Called by `rules` and
`listener`; the attempts at other Deployments are `attempts`'.

The declared answer is put in the place of a failure when all attempts are over, whoever reports it: a replica, or
Envoy (no replica, no connection, no answer in time, a Deployment that does not exist).
"""

from typing import Any

from podium.gateway.render.document import fragment, typed
from podium.resources.traffic import Fallback

FALLBACK_HEADER = "x-podium-fallback"
"""Of an answer: `deployment` or `answer` where it is not the rule's own Deployment's."""
FILTER = "envoy.filters.http.custom_response"
_TYPE = "envoy.extensions.filters.http.custom_response.v3.CustomResponse"
_POLICY = "envoy.extensions.http.custom_response.local_response_policy.v3.LocalResponsePolicy"


ON = {FILTER: typed(_TYPE)}
"""For a route's `typed_per_filter_config`: that the filter is on, without a declared answer of this route."""


def answering() -> dict[str, Any]:
    """The filter in the listener, which changes nothing; a route's own settings take its place."""
    return {"name": FILTER, "typed_config": typed(_TYPE)}


def answer(fallback: Fallback | None) -> dict[str, Any]:
    """For the route's `typed_per_filter_config`: one entry, or none without a declared answer."""
    if fallback is None or fallback.answer is None:
        return {}
    policy = typed(
        _POLICY,
        status_code=fallback.answer.status,
        body={"inline_string": fragment(fallback.answer.body).decode()},
        response_headers_to_add=[_header(FALLBACK_HEADER, "answer")],
    )
    failed = {"or_matcher": {"predicate": [_of_class("5xx"), _overloaded()]}}
    on_match = {"action": {"name": "answer", "typed_config": policy}}
    matcher = {"matcher_list": {"matchers": [{"predicate": failed, "on_match": on_match}]}}
    return {FILTER: typed(_TYPE, custom_response_matcher=matcher)}


def telling(first: int) -> list[dict[str, Any]]:
    """For the route's `response_headers_to_add`: marks the answers of fallback Deployments. `first` attempts are the
    rule's own (and a cascade's larger model's); an answer that came later is marked."""
    late = f"%CEL(upstream.request_attempt_count > {first} ? 'deployment' : '')%"
    return [{**_header(FALLBACK_HEADER, late), "append_action": "ADD_IF_ABSENT"}]


def _header(name: str, value: str) -> dict[str, Any]:
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _of_class(digits: str) -> dict[str, Any]:
    return _predicate("HttpResponseStatusCodeClassMatchInput", digits)


def _overloaded() -> dict[str, Any]:
    """A replica's full queue. A caller's own limit is Envoy's 429, and has to reach the caller."""
    ours = _predicate("HttpResponseLocalReplyMatchInput", "true")
    return {
        "and_matcher": {
            "predicate": [_predicate("HttpResponseStatusCodeMatchInput", "429"), {"not_matcher": ours}]
        }
    }


def _predicate(kind: str, value: str) -> dict[str, Any]:
    read = {"name": kind, "typed_config": typed(f"envoy.type.matcher.v3.{kind}")}
    return {"single_predicate": {"input": read, "value_match": {"exact": value}}}
