-- A token bucket that replicas share. It stores the number of tokens that were taken and not yet refilled. These tokens
-- stay taken when the rate changes.
-- After a failover the new server's clock may be behind. Until that clock reaches the stored time, no token is refilled.
-- KEYS[1] the bucket · ARGV microseconds per token, burst, cost, lease
-- If cost is available, returns the number of tokens given: at least cost, and up to lease if lease is larger.
-- If cost is not available, returns the microseconds until it is available, as a negative number.
local interval, burst, cost, lease = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local SLACK = 1e-4 -- part of a token that may be missing: sums of floating-point times are not exact
local EPOCH = 1.7e9 -- seconds; keeps the microseconds small enough for a double to hold their fractions

local time = redis.call('TIME')
local now = (time[1] - EPOCH) * 1e6 + time[2]
local taken = 0
local kept = redis.call('GET', KEYS[1])
if kept then
  local at
  taken, at = struct.unpack('<dd', kept)
  now = math.max(now, at)
  taken = math.max(taken - (now - at) / interval, 0)
end

local free = burst - taken + SLACK
if free < cost then
  return -math.ceil((cost - free) * interval)
end
local given = math.max(cost, math.min(lease, math.floor(free)))
taken = taken + given
redis.call('SET', KEYS[1], struct.pack('<dd', taken, now), 'PX', math.ceil(taken * interval / 1000))
return given
