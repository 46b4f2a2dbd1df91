"""The Lua program of the workers: requests that wait, and stickiness by a cookie or header whose name is policy.

The route and the version are looked up again while a request waits, by the rules of `rules.py`, in the same maps.
"""

from __future__ import annotations

PROGRAM = r"""-- Written by sdlb; do not edit.
local LEVELS = 8
local POLL_MS = 20
local SETTLE_REQUESTS = 1000
local exact = Map.new("exact.map", Map._str)
local prefix = Map.new("prefix.map", Map._beg)
local picks = Map.new("picks.map", Map._beg)
local parks = Map.new("parks.map", Map._str)
local sticky = Map.new("sticky.map", Map._str)
local stamps = Map.new("stamps.map", Map._str)
local meta = Map.new("meta.map", Map._str)
local waiting = {}

local function encode(text)
  return (text:gsub("[^A-Za-z0-9%-%._~]", function(c) return string.format("%%%02X", c:byte()) end))
end

local function at(host, path)
  local key = encode(host .. path)
  return exact:lookup(key) or prefix:lookup(key)
end

local function route(host, path)
  local found = at(host, path)
  if found then return found end
  local labels = {}
  for label in host:gmatch("[^.]+") do labels[#labels + 1] = label end
  for level = math.min(LEVELS, #labels - 1), 1, -1 do
    found = at("*." .. table.concat(labels, ".", #labels - level + 1), path)
    if found then return found end
  end
  return at("*", path)
end

local function serves(txn, group)
  local ready = group and txn.c:nbsrv(group)
  return ready and tonumber(ready) > 0
end

local function passed_ms(since)
  local now = core.now()
  return (now.sec - since.sec) * 1000 + (now.usec - since.usec) / 1000
end

-- Waits until the request's route has a version that can serve, within the limits of the policy.
core.register_action("sdlb_wait", { "http-req" }, function(txn)
  local host, path = txn:get_var("txn.h") or "", txn:get_var("txn.p") or ""
  local draw = txn:get_var("txn.d") or "10000"
  local since, counted = core.now(), nil
  while true do
    local id = route(host, path)
    if id then
      txn:set_var("txn.r", id)
      local group = picks:lookup(id .. "." .. draw)
      if serves(txn, group) then
        txn:set_var("txn.g", group)
        break
      end
    end
    local requests_max, timeout_ms, key
    if id then
      local terms = parks:lookup(id)
      if not terms then break end
      -- A route gets a new id with each change, so waiting requests are counted by its pattern.
      requests_max, timeout_ms, key = terms:match("^(%d+):(%d+):(.*)$")
    else
      requests_max, timeout_ms, key = SETTLE_REQUESTS, meta:lookup("settle_ms"), ""
    end
    if not timeout_ms or passed_ms(since) >= tonumber(timeout_ms) then break end
    if not counted then
      if (waiting[key] or 0) >= tonumber(requests_max) then break end
      waiting[key] = (waiting[key] or 0) + 1
      counted = key
    end
    core.msleep(POLL_MS)
  end
  if counted then
    waiting[counted] = waiting[counted] > 1 and waiting[counted] - 1 or nil
    txn:set_var("txn.parked", "1")
  end
end, 0)

-- A parent's request that it may not repeat waits for the table of a node that has just started.
core.register_action("sdlb_settle", { "http-req" }, function(txn)
  local stamp, since = encode(txn.f:req_fhdr("sdlb-to") or ""), core.now()
  if (waiting[""] or 0) >= SETTLE_REQUESTS then return end
  waiting[""] = (waiting[""] or 0) + 1
  while true do
    local group = (stamps:lookup(stamp) or ""):match("^[^.]+")
    if serves(txn, group) then
      txn:set_var("txn.g", group)
      txn:set_var("txn.up", 1)
      break
    end
    local timeout_ms = meta:lookup("settle_ms")
    if not timeout_ms or passed_ms(since) >= tonumber(timeout_ms) then break end
    core.msleep(POLL_MS)
  end
  waiting[""] = waiting[""] > 1 and waiting[""] - 1 or nil
end, 0)

-- The value that fixes the version of a client; "" without one.
core.register_fetches("sdlb_sticky", function(txn)
  local terms = sticky:lookup(txn:get_var("txn.r") or "") or ""
  local by, name = terms:match("^(%a+):(.*)$")
  if by == "client" then return txn.f:src() or "" end
  if not by then return "" end
  name = name:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end)
  if by == "header" then return txn.f:req_fhdr(name) or "" end
  return txn.f:req_cook(name) or ""
end)
"""
