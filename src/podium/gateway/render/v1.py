"""KServe's version 1 paths (TensorFlow Serving's too) for clients that know no others. Called by `listener`.

`/v1/models/NAME:predict` becomes `/v2/models/NAME/v1/models/NAME:predict` before anything else looks at it: a path
below the Deployment's own, with its token rules, routes, weights and limits. Replicas of podium-runtime answer that
path, and those of other servers are asked for what stands behind the Deployment's.
"""

from typing import Any

from podium.gateway.render.document import typed
from podium.gateway.render.only_for import header, only_for, switched_on

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
_FILTER = "podium.v1"
MATCHES: tuple[dict[str, Any], ...] = (
    {"prefix": "/v1/"},
    {"prefix": "/ws/", "headers": [{"name": ":path", "string_match": {"contains": "/v1/models/"}}]},
)
"""These paths, and some more, as the matches of routes."""
ON = switched_on(_FILTER)
"""For a route's `typed_per_filter_config`: that this filter is on."""


def paths() -> dict[str, Any]:
    """The filter, which runs for these paths only."""
    script = typed(
        "envoy.extensions.filters.http.lua.v3.Lua", default_source_code={"inline_string": _REWRITING}
    )
    v1 = header(":path", {"safe_regex": {"google_re2": {}, "regex": _PATHS}})
    return only_for(v1, _FILTER, script)
