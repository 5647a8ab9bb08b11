"""KServe's version 1 paths (TensorFlow Serving's too) for clients that know no others. Called by `listener`.

`/v1/models/NAME:predict` becomes `/v2/models/NAME/v1/models/NAME:predict` before anything else looks at it: a path
below the Deployment's own, with its token rules, routes, weights and limits. Replicas of podium-runtime answer that
path, and those of other servers are asked for what stands behind the Deployment's.
"""

from typing import Any

from podium.gateway.render.document import typed

_REWRITING = """
function envoy_on_request(handle)
  local path = handle:headers():get(":path")
  local before, name, rest = path:match("^(.-)/v1/models/([a-z][a-z0-9%-]*)(.*)$")
  if name == nil then return end
  local version, verb = rest:match("^(/versions/[^/:?]+)(.*)$")
  local base = before .. "/v2/models/" .. name .. (version or "")
  handle:headers():replace(":path", base .. "/v1/models/" .. name .. (verb or rest))
end
"""
_PATHS = "(/ws/[^/]+)?/v1/models/.*"


def paths() -> dict[str, Any]:
    """The filter, which runs for these paths only."""
    script = typed(
        "envoy.extensions.filters.http.lua.v3.Lua", default_source_code={"inline_string": _REWRITING}
    )
    path = typed("envoy.type.matcher.v3.HttpRequestHeaderMatchInput", header_name=":path")
    v1 = {
        "single_predicate": {
            "input": {"name": "path", "typed_config": path},
            "value_match": {"safe_regex": {"google_re2": {}, "regex": _PATHS}},
        }
    }
    skip = typed("envoy.extensions.filters.common.matcher.action.v3.SkipFilter")
    others = {
        "predicate": {"not_matcher": v1},
        "on_match": {"action": {"name": "skip", "typed_config": skip}},
    }
    return {
        "name": "podium.v1",
        "typed_config": typed(
            "envoy.extensions.common.matching.v3.ExtensionWithMatcher",
            extension_config={"name": "podium.v1", "typed_config": script},
            xds_matcher={"matcher_list": {"matchers": [others]}},
        ),
    }
