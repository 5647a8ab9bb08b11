"""gRPC calls as plain requests: the filters that turn one into the other. Called by `listener`.

A call `/inference.GRPCInferenceService/RPC` names its Deployment in a header or in its authority. The first filter
writes that into the path, `/ws/WORKSPACE/v2/models/NAME/...`, before anything else looks at it. From there on it is a
request like any other: the same token rules, routes, weights, limits and retries, and no route of its own. At the end
a filter of Envoy's takes gRPC's frame off, and the last one gives the replica the path of the call again.

The answer comes back the other way: what is none of a replica's messages is made to look like one, Envoy's filter puts
the frame on and adds trailers, and the first filter writes into these what went wrong, as gRPC says it.
"""

from typing import Any

from podium.gateway.render.document import typed
from podium.gateway.render.only_for import either, header, only_for, switched_on
from podium.resources.shape import DEFAULT_WORKSPACE

SERVICE = "inference.GRPCInferenceService"
MESSAGE_TYPE = "application/x-protobuf"
"""What replicas get and answer: one message without gRPC's frame."""
DEPLOYMENT_HEADER = "podium-deployment"
_HOW = f"name it in the header {DEPLOYMENT_HEADER}: [WORKSPACE/]NAME, or in the authority: NAME[.WORKSPACE]"

# Notes between the two filters stand in the request's metadata, which no client can write: `call` on every call, then
# `method` and `base` (the path of its Deployment), `guessed` where the authority named it, `bridged` once it is plain.
_NOTES = "podium.grpc"
METHOD_NOTE = (_NOTES, "method")
"""Where the call's name stands for the filters between the two, such as `ModelInfer`: namespace and key."""

_NAMING = f"""
local NAME = "([a-z][a-z0-9%-]*)"

local function refuse(handle, status, words)
  handle:respond({{[":status"] = status, ["grpc-accept-encoding"] = "identity"}}, words)
end

-- Workspace and name of the Deployment, or nil and why there are none.
local function deployment_of(headers)
  local given = headers:get("{DEPLOYMENT_HEADER}")
  if given ~= nil then
    local workspace, name = given:match("^" .. NAME .. "/" .. NAME .. "$")
    if name == nil then workspace, name = "{DEFAULT_WORKSPACE}", given:match("^" .. NAME .. "$") end
    if name == nil then return nil, "{DEPLOYMENT_HEADER}: expected [WORKSPACE/]NAME" end
    return workspace, name
  end
  local host = (headers:get(":authority") or ""):lower():gsub(":%d+$", "")
  local name, rest = host:match("^" .. NAME .. "(.*)$")
  local workspace = rest == "" and "{DEFAULT_WORKSPACE}"
    or rest and (rest:match("^%." .. NAME .. "$") or rest:match("^%." .. NAME .. "%."))
  if not workspace or host == "localhost" then return nil, "the call names no deployment: {_HOW}" end
  return workspace, name
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local kind = headers:get("content-type")
  if kind == nil or kind:find("application/grpc", 1, true) ~= 1 then return end
  local notes = handle:streamInfo():dynamicMetadata()
  notes:set("{_NOTES}", "call", true)
  local method = (headers:get(":path") or ""):match("^/{SERVICE.replace(".", "%.")}/(%w+)$")
  if method == nil then return refuse(handle, "501", "the one service here is {SERVICE}") end
  if kind ~= "application/grpc" and kind ~= "application/grpc+proto" then
    return refuse(handle, "501", "messages are in protobuf here: application/grpc or application/grpc+proto")
  end
  if (headers:get("grpc-encoding") or "identity") ~= "identity" then
    return refuse(handle, "501", "compressed messages are not read here: grpc-encoding is identity")
  end
  if method == "ModelStreamInfer" then
    return refuse(handle, "501", "ModelStreamInfer: streams are not served over gRPC; call ModelInfer")
  end
  local workspace, name = deployment_of(headers)
  if workspace == nil then return refuse(handle, "400", name) end
  local base = "/v2/models/" .. name
  if workspace ~= "{DEFAULT_WORKSPACE}" then base = "/ws/" .. workspace .. base end
  notes:set("{_NOTES}", "method", method)
  notes:set("{_NOTES}", "base", base)
  if headers:get("{DEPLOYMENT_HEADER}") == nil then notes:set("{_NOTES}", "guessed", true) end
  headers:replace(":path", base .. "/grpc")
  handle:clearRouteCache()
end

local STATUSES = {{
  invalid = "3", timeout = "4", notFound = "5", forbidden = "7", tooLarge = "8", unavailable = "14",
  unauthenticated = "16",
}}

-- What gRPC says for a problem document in a message; another message as it is.
local function translated(call, status, words)
  local code = words:match('"code":"(%a+)"')
  local _, before = words:find('"detail":"', 1, true)
  if code == nil or before == nil then return status, words end
  local at = before + 1
  while at <= #words and words:sub(at, at) ~= '"' do
    at = at + (words:sub(at, at) == "\\\\" and 2 or 1)
  end
  local detail = words:sub(before + 1, at - 1):gsub("\\\\(.)", "%1")
  if call["guessed"] and (code == "notFound" or code == "forbidden") then
    detail = detail .. " (the deployment is the authority's: {_HOW})"
  end
  if words:find('"status":501', 1, true) then return "12", detail end
  return STATUSES[code] or status, detail
end

function envoy_on_response(handle)
  local call = handle:streamInfo():dynamicMetadata():get("{_NOTES}")
  if call == nil then return end
  local headers = handle:headers()
  local mark = call["bridged"] and "x-" or ""
  local status, words = headers:get(mark .. "grpc-status"), headers:get(mark .. "grpc-message")
  if status == nil then return end
  status, words = translated(call, status, words or "")
  if not call["bridged"] then
    headers:replace("grpc-status", status)
    headers:replace("grpc-message", words)
    return
  end
  headers:remove("x-grpc-status")
  headers:remove("x-grpc-message")
  headers:replace(":status", "200")
  local trailers = handle:trailers()
  trailers:replace("grpc-status", status)
  trailers:replace("grpc-message", words)
end
"""

_BRIDGING = f"""
-- The version that a message asks for. It is the second field of all that have one, and libraries write fields in
-- order: what stands elsewhere is for the replica to check, which serves one version only.
local function version_in(message)
  local octets = message:getBytes(0, math.min(message:length(), 512))
  local at = 1
  while true do
    local tag, size = octets:byte(at, at + 1)
    if size == nil or size > 127 or (tag ~= 0x0A and tag ~= 0x12) then return nil end
    if tag == 0x12 then return octets:sub(at + 2, at + 1 + size):match("^%w[%w._%-]*$") end
    at = at + 2 + size
  end
end

function envoy_on_request(handle)
  local notes = handle:streamInfo():dynamicMetadata()
  local call = notes:get("{_NOTES}")
  if call == nil or call["base"] == nil then return end
  local base, method = call["base"], call["method"]
  notes:set("{_NOTES}", "bridged", true)
  -- Objects that were asked for before the body has come are of no use after it.
  local message = handle:body()
  local headers = handle:headers()
  local version = nil
  if message ~= nil and message:length() > 0 and method:find("^Model") then version = version_in(message) end
  if version ~= nil then
    headers:replace(":path", base .. "/versions/" .. version .. "/grpc")
    handle:clearRouteCache()
  end
  -- Asking for the route's metadata settles the route, for the path as it is now; the next line does not change it.
  handle:metadata():get("")
  headers:replace(":path", "/{SERVICE}/" .. method)
  headers:remove("te")
end

-- gRPC's statuses for those of HTTP, of a replica that does not say its own.
local STATUSES = {{
  ["400"] = "3", ["404"] = "12", ["408"] = "4", ["413"] = "8", ["429"] = "8", ["503"] = "14", ["504"] = "4",
}}

function envoy_on_response(handle)
  local call = handle:streamInfo():dynamicMetadata():get("{_NOTES}")
  if call == nil or not call["bridged"] then return end
  local headers = handle:headers()
  if headers:get("content-type") == "{MESSAGE_TYPE}" then return end
  local status, words = headers:get("grpc-status"), headers:get("grpc-message")
  if status == nil then
    -- An answer of HTTP: its words would be read as a message.
    local http = headers:get(":status")
    status, words = STATUSES[http] or "2", "the replica answered HTTP " .. http
    local body = handle:body()
    if body ~= nil then body:setBytes("") end
    headers = handle:headers()
    headers:replace("content-length", "0")
  end
  headers:remove("grpc-status")
  headers:remove("grpc-message")
  headers:replace("x-grpc-status", status)
  headers:replace("x-grpc-message", words or "")
  headers:replace("content-type", "{MESSAGE_TYPE}")
end
"""


_NAMES, _BRIDGE, _BRIDGES = (
    "podium.grpc.naming",
    "envoy.filters.http.grpc_http1_reverse_bridge",
    "podium.grpc.bridging",
)
_CALL_TYPE = "application/grpc"
MATCHES: tuple[dict[str, Any], ...] = (
    {"prefix": "/", "headers": [{"name": "content-type", "string_match": {"prefix": _CALL_TYPE}}]},
)
"""Which requests are calls, as the matches of routes."""
ON = {
    **switched_on(_NAMES),
    _BRIDGE: typed("envoy.extensions.filters.http.grpc_http1_reverse_bridge.v3.FilterConfigPerRoute"),
    **switched_on(_BRIDGES),
}
"""For a route's `typed_per_filter_config`: that these filters are on."""


def naming() -> dict[str, Any]:
    """The filter in front of all others."""
    return _for_calls(_NAMES, _NAMING)


def bridging() -> list[dict[str, Any]]:
    """The filters behind all others but the router."""
    bridge = typed(
        "envoy.extensions.filters.http.grpc_http1_reverse_bridge.v3.FilterConfig",
        content_type=MESSAGE_TYPE,
        withhold_grpc_frames=True,
    )
    return [
        {"name": _BRIDGE, "typed_config": bridge},
        _for_calls(_BRIDGES, _BRIDGING),
    ]


def _for_calls(name: str, code: str) -> dict[str, Any]:
    """A script that runs for calls only."""
    # The scripts say when the route is to be looked for again: the path that the last one leaves behind is no route's.
    fields = {"default_source_code": {"inline_string": code}, "clear_route_cache": False}
    calls = either(*(header("content-type", {"prefix": kind}) for kind in (_CALL_TYPE, MESSAGE_TYPE)))
    return only_for(calls, name, typed("envoy.extensions.filters.http.lua.v3.Lua", **fields))
