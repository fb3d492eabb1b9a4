-- What limits a message, and whether it may run now: numbers, rates, slots, unique keys. The beginning of a function, see
-- lanes.lua.
-- A gate is what messages wait at: a key of a rate ('R'), or of slots ('S'). The slots of a unique key have no name.

local HOLDERS_AT_ONCE = 50

-- {fair key, rates, slots, unique or nil}, see limits.py: arrays in the order of the fields there.
local function limits_of(blob)
  local _, _, _, _, _, _, at = struct.unpack('>BBHHBc0Bc0', blob)
  local size, first = struct.unpack('>H', blob, at)
  return cmsgpack.unpack(string.sub(blob, first, first + size - 1))
end

-- Numbers of a limit that replace those in messages: what nodes declare, and above it what somebody has set.
local NUMBERS, CIRCUIT = {}, 'circuit:'
local function numbers_of(name)
  if not NUMBERS[name] and string.sub(name, 1, #CIRCUIT) == CIRCUIT then
    local is_closed = redis.call('HEXISTS', key_circuit(string.sub(name, #CIRCUIT + 1)), 'until') == 0
    NUMBERS[name] = is_closed and {} or {most = 1}
  elseif not NUMBERS[name] then
    local merged = {}
    for _, text in ipairs(redis.call('HMGET', key_limits(), 'declared:' .. name, 'set:' .. name)) do
      local ok, some = pcall(cjson.decode, text)
      for what, value in pairs(ok and type(some) == 'table' and some or {}) do
        if type(value) == 'number' and value > 0 then merged[what] = value end
      end
    end
    NUMBERS[name] = merged
  end
  return NUMBERS[name]
end

local function gate_of(kind, name, key) return kind .. BAR .. name .. BAR .. key end
local function parts_of_gate(gate) return string.match(gate, '^(.)' .. BAR .. '(.-)' .. BAR .. '(.*)$') end

-- Kind and name of the limit that has a gate; the key of a unique one ('U') begins with its task type.
local function limit_of_gate(gate)
  local kind, name, key = parts_of_gate(gate)
  if name ~= '' then return kind .. BAR .. name end
  return 'U' .. BAR .. (string.match(key, '^(.-)' .. BAR) or '')
end

local function write_rate(name, key, paid, pause, each)
  local ends = math.max(paid, pause)
  if ends <= NOW then redis.call('UNLINK', key_rate(name, key)) return end
  local text = string.format('%.17g:%.0f:', paid, pause) .. (each and string.format('%.17g', each) or '')
  redis.call('SET', key_rate(name, key), text, 'PX', string.format('%.0f', math.ceil(ends - NOW)))
end

-- Generic cell rate algorithm: the one number of a key is when all that has started will have been paid for (ms). The end
-- of a pause follows, and how long a unit took to pay: if that has changed, so does the debt that is left. Answers when this
-- message may start, that number afterwards, the end of the pause, and how long a unit takes.
local function rate_at(rate)
  local name, key, limit, period, burst, cost = unpack(rate, 1, 6)
  local set = numbers_of(name)
  local each, at, pause = (set.period_ms or period) / (set.limit or limit), NOW, 0
  local known = redis.call('GET', key_rate(name, key))
  if known then
    local paid, paused, before = string.match(known, '^([^:]*):([^:]*):(.*)$')
    at, pause = math.max(tonumber(paid) or 0, NOW), tonumber(paused) or 0
    if tonumber(before) and tonumber(before) ~= each then
      at = NOW + (at - NOW) * each / before
      write_rate(name, key, at, pause, each)
    end
  end
  cost = cost or 1
  burst = math.max(set.burst or burst, cost, 1)
  return math.max(at + each * (cost - burst), pause), at + each * cost, pause, each
end

-- A task whose latest call waits while one runs takes a slot of its unique key.
local function slots_of(limits)
  local unique = limits[4]
  if not unique or unique[4] ~= 'latest' then return limits[3] end
  local all = {unpack(limits[3])}
  all[#all + 1] = {'', unique[1], 1, 'wait'}
  return all
end

local function holder(epoch, tag) return epoch .. '|' .. tag end
local function is_held(entry)
  local epoch, tag = string.match(entry, '^([^|]*)|(.*)$')
  return epoch ~= nil and redis.call('HEXISTS', key_leased(epoch), tag) == 1
end

-- Number of free slots. An entry is a slot only while its claim is leased: if all are taken, those whose claim has gone
-- without a script of this version noticing are dropped, at most once a second.
local function free_slots(name, key, most)
  local slots = key_slots(name, key)
  most = numbers_of(name).most or most
  local free = most - redis.call('SCARD', slots)
  if free > 0 then return free end
  local gate = gate_of('S', name, key)
  local checked = redis.call('ZSCORE', key_slot_checks(), gate)
  if checked and tonumber(checked) > NOW and tonumber(checked) <= NOW + 1000 then return free end
  redis.call('ZADD', key_slot_checks(), NOW + 1000, gate)
  for _, entry in ipairs(redis.call('SRANDMEMBER', slots, HOLDERS_AT_ONCE)) do
    if not is_held(entry) then free = free + redis.call('SREM', slots, entry) end
  end
  return free
end

-- Who has a unique key: {waiting, its queue, its field, running, its claim, id and end of a key that is kept for a time}. A
-- holder that is nowhere has none: what waits is gone once it is claimed.
local function holders_of(unique)
  local has = redis.call('HMGET', key_unique(unique[1]), 'waiting', 'queue', 'field', 'running', 'claim', 'id', 'until')
  if has[1] and redis.call('HEXISTS', key_limited_messages(has[2]), has[3]) == 0 then has[1] = false end
  if has[4] and not is_held(has[5]) then has[4] = false end
  return has
end

-- IS_FREE: nobody has the key.
local function begin_waiting(limits, id, queue, field, is_free)
  local unique = limits[4]
  if not unique then return end
  local has = is_free and {} or holders_of(unique)
  -- A retry of the running one keeps to the slot; the latest call stays the one that is replaced.
  if has[1] and has[1] ~= id then return end
  local key = key_unique(unique[1])
  redis.call('HSET', key, 'waiting', id, 'queue', queue, 'field', field, 'since', NOW)
  if unique[2] == 'time' and not has[7] then
    redis.call('HSET', key, 'id', id, 'until', NOW + unique[3])
    redis.call('PEXPIREAT', key, string.format('%.0f', NOW + unique[3] - OFFSET))
  end
end

-- A message that waited and will never run gives its key back, even one that was kept for a time.
local function never_runs(limits, id)
  local unique = limits[4]
  if not unique then return end
  local has = redis.call('HMGET', key_unique(unique[1]), 'waiting', 'running')
  if has[1] ~= id then return end
  if has[2] and has[2] ~= id then
    redis.call('HDEL', key_unique(unique[1]), 'waiting', 'id', 'until')
  else
    redis.call('UNLINK', key_unique(unique[1]))
  end
end

local function begin_running(limits, id, epoch, tag)
  local unique = limits[4]
  if not unique then return end
  if unique[2] ~= 'start' then
    redis.call('HSET', key_unique(unique[1]), 'running', id, 'claim', holder(epoch, tag))
  elseif redis.call('HGET', key_unique(unique[1]), 'waiting') == id then
    redis.call('UNLINK', key_unique(unique[1]))
  end
end

local function end_running(limits, id, epoch, tag)
  local unique = limits[4]
  if not unique or unique[2] == 'start' then return end
  local key = key_unique(unique[1])
  local has = redis.call('HMGET', key, 'running', 'claim', 'waiting', 'queue', 'field', 'until')
  if has[1] ~= id or has[2] ~= holder(epoch, tag) then return end
  if has[6] or (has[3] and redis.call('HEXISTS', key_limited_messages(has[4]), has[5]) == 1) then
    redis.call('HDEL', key, 'running', 'claim')
  else
    redis.call('UNLINK', key)
  end
end
