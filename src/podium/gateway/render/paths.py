"""Paths of requests as another server knows them, and its answers marked with their revision.

Called by `clusters`. The rewriting stands at the cluster, not at the route: during a rollout one route leads to two
revisions, and each may name things its own way. It is a filter of the upstream side, which runs for each attempt. A
repeated request carries the path that the attempt before left, which may have gone to a server of another name: so the
first attempt notes the path that it found, and all go by that.
"""

from typing import Any

import orjson

from podium.gateway.render.document import typed
from podium.planning.routing import Arm

# Plain comparisons, no patterns: names hold '-' and '.', which mean something in a pattern of Lua's.
_SOURCE = """
local public, pinned, inside, revision = %s, %s, %s, %s
local models, once_more = "/v2/models/", "/v1/models/"
local neutral = models .. "-"
local function below(path, prefix)
  if path:sub(1, #prefix) ~= prefix then return nil end
  local rest = path:sub(#prefix + 1)
  local first = rest:sub(1, 1)
  if first == "" or first == "/" or first == "?" then return rest end
  return nil
end
function envoy_on_request(handle)
  local path = handle:headers():get(":path")
  -- An attempt before this one may have left the path of another server.
  local notes = handle:streamInfo():dynamicMetadata()
  local first = notes:get("podium.paths")
  local changed = path
  if first then changed = first["path"] else notes:set("podium.paths", "path", path) end
  -- Behind a Route, whatever its name.
  local here = below(changed, neutral)
  if here then
    -- Paths of version 1 name the model once more.
    if below(here:gsub(":", "/", 1), once_more .. "-") then
      here = once_more .. public:sub(#models + 1) .. here:sub(#once_more + 2)
    end
    changed = public .. here
  end
  local rest = below(changed, public)
  while rest do
    local version = below(rest, pinned)
    while version do
      rest = version
      version = below(rest, pinned)
    end
    changed = inside .. rest
    if inside ~= "" then break end
    rest = below(changed, public)
  end
  if changed:sub(1, 1) ~= "/" then changed = "/" .. changed end
  if changed ~= path then handle:headers():replace(":path", changed) end
end
function envoy_on_response(handle)
  handle:headers():replace("x-podium-revision", revision)
end
"""


def upstream_filters(arm: Arm) -> list[dict[str, Any]]:
    """The cluster's own filters; none for Podium's model server, which does all this by itself."""
    if arm.paths is None:
        return []
    parts = (arm.paths.public, f"/versions/{arm.paths.version}", arm.paths.inside, arm.revision)
    # JSON's form of these texts (letters, digits, '-', '.', '_' and '/') is Lua's too.
    source = _SOURCE % tuple(orjson.dumps(part).decode() for part in parts)
    rewrite = typed("envoy.extensions.filters.http.lua.v3.Lua", default_source_code={"inline_string": source})
    codec = typed("envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec")
    return [
        {"name": "podium.paths", "typed_config": rewrite},
        {"name": "envoy.filters.http.upstream_codec", "typed_config": codec},
    ]
