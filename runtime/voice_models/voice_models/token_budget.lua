-- Token budgets that replicas share, counted as in `token_window.py`. After a failover the new server's clock may be
-- behind. Until that clock has caught up, no tokens are freed.
-- KEYS the budgets of one attempt · ARGV 'reserve' or 'settle', reserved tokens, expiry, used tokens,
-- then for each budget its limit and its window in seconds
-- reserve: the expiry is in seconds from now. If all budgets admit, the answer is {0, T}. T is the Unix time in whole
-- seconds at which the reservation expires. Otherwise no budget changes, and the answer is {N, microseconds until the
-- tokens may fit}. N is the number of the first budget that refuses, counted from 1.
-- settle: the expiry is the T that reserve has returned. The answer is {0, T}.
local RESOLUTION = 64
local RETRY_HELD = 1e6
local operation, cost, expiry, used = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = tonumber(time[1]) + time[2] / 1e6

local function read(key, grain)
  local kept = redis.call('GET', key)
  local before = kept and cmsgpack.unpack(kept) or {held = {}, spent = {}}
  local oldest = math.floor(now / grain) - RESOLUTION
  local budget = {held = {}, spent = {}, total = 0}
  for second, tokens in pairs(before.held) do
    if second > now then budget.held[second] = tokens; budget.total = budget.total + tokens end
  end
  for slot, tokens in pairs(before.spent) do
    if slot >= oldest then budget.spent[slot] = tokens; budget.total = budget.total + tokens end
  end
  return budget
end

local function wait(budget, excess, grain)
  local slots = {}
  for slot in pairs(budget.spent) do table.insert(slots, slot) end
  table.sort(slots)
  for _, slot in ipairs(slots) do
    excess = excess - budget.spent[slot]
    if excess <= 0 then return math.ceil(((slot + RESOLUTION + 1) * grain - now) * 1e6) end
  end
  return RETRY_HELD
end

local budgets = {}
for number, key in ipairs(KEYS) do
  local limit, window = tonumber(ARGV[3 + 2 * number]), tonumber(ARGV[4 + 2 * number])
  local grain = window / RESOLUTION
  local budget = read(key, grain)
  if operation == 'reserve' and budget.total + cost > limit then
    return {number, wait(budget, budget.total + cost - limit, grain)}
  end
  budget.window = window
  budgets[number] = budget
end

local second = operation == 'reserve' and math.ceil(now + expiry) or expiry
for number, key in ipairs(KEYS) do
  local budget = budgets[number]
  if operation == 'reserve' then
    budget.held[second] = (budget.held[second] or 0) + cost
  else
    local held = (budget.held[second] or 0) - cost
    budget.held[second] = held > 0 and held or nil
    local slot = math.floor(now / (budget.window / RESOLUTION))
    budget.spent[slot] = (budget.spent[slot] or 0) + used
  end
  local lasts = math.max(budget.window * (1 + 2 / RESOLUTION), second - now + 1)
  redis.call('SET', key, cmsgpack.pack({held = budget.held, spent = budget.spent}), 'PX', math.ceil(lasts * 1000))
end
return {0, second}
