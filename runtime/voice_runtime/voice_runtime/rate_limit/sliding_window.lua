-- A sliding window that replicas share: in any time span as long as the window, at most limit admissions.
-- One string holds the same log as in `sliding_window.py`: the total of all counts, the time at which the last entry began,
-- and the entries. An entry holds the time of its last admission, and its count.
-- After a failover the new server's clock may be behind. Until that clock reaches the last time in the log, no slot
-- becomes free.
-- KEYS[1] the log · ARGV limit, window in microseconds, cost, lease
-- If cost fits, returns the number of admissions given: at least cost, and up to lease if lease is larger.
-- If cost does not fit, returns the microseconds until it fits, as a negative number.
local limit, window, cost, lease = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local RESOLUTION = 64 -- entries of a window; a slot becomes free at most window / RESOLUTION too late
local EPOCH = 1.7e9
local HEADER, ENTRY = 16, 12

local time = redis.call('TIME')
local now = (time[1] - EPOCH) * 1e6 + time[2]
local total, opened, entries = 0, 0, ''
local kept = redis.call('GET', KEYS[1])
if kept then
  total, opened = struct.unpack('<dd', kept)
  now = math.max(now, (struct.unpack('<d', kept, #kept - ENTRY + 1)))
  local first = HEADER + 1
  while first < #kept do
    local last, count = struct.unpack('<dI4', kept, first)
    if last > now - window then break end
    total = total - count
    first = first + ENTRY
  end
  entries = string.sub(kept, first)
end

local excess = total + cost - limit
if excess > 0 then
  local position, last, count = 1, now, 0
  while excess > 0 and position < #entries do
    last, count, position = struct.unpack('<dI4', entries, position)
    excess = excess - count
  end
  return -math.max(1, math.ceil(last + window - now))
end

local given = math.max(cost, math.min(lease, limit - total))
local count = given
if entries ~= '' and now - opened <= window / RESOLUTION then
  count = count + struct.unpack('<I4', entries, #entries - 3)
  entries = string.sub(entries, 1, -ENTRY - 1)
else
  opened = now
end
redis.call('SET', KEYS[1], struct.pack('<dd', total + given, opened) .. entries .. struct.pack('<dI4', now, count),
  'PX', math.ceil(window / 1000))
return given
