-- Read the state of all queues and nodes at one instant: 3 rank of the first node to read (0), 4 number of reasons for
-- dead letters, the reasons, then queues. Changes nothing.
-- Answers {now (ms), wall clock (ms), per queue: {{depth, since when the oldest may run, its eta}, … for priorities 0
-- to 9}, {number delayed, first due (ms)}, {number of parked task types, task type, number parked, since (ms), … for some
-- of them}, {number of dead letters by reason, …}, {limit, number blocked by it, …}}, {epoch, end of its lease (ms), number
-- held, description (JSON), …} for up to 500 nodes, {counter, value, …}}; unknown values are ''.
local first_node, reasons = tonumber(ARGV[3]), tonumber(ARGV[4])
local HEADERS_MOST, TYPES_MOST_LISTED, NODES_MOST = 65536, 100, 500

local function headers_of(blob)
  local at = headers_place(blob)
  if not at or #blob - at > HEADERS_MOST then return {} end
  local headers = cmsgpack.unpack(string.sub(blob, at))
  return type(headers) == 'table' and headers or {}
end

local function oldest_of(blob)
  local ok, headers = pcall(headers_of, blob or '')
  if not ok then headers = {} end
  local sent_at, eta = headers.taskapp_sent_at, headers.eta
  if type(headers.taskapp_ready_at) == 'number' then sent_at, eta = headers.taskapp_ready_at, nil end
  return type(sent_at) == 'number' and string.format('%.3f', sent_at) or '', type(eta) == 'string' and eta or ''
end

-- Messages with limits that could run now, and the one whose turn is next.
local function in_lanes(queue, priority, numbers)
  local number = math.max(numbers[priority] or 0, 0)
  local class = redis.call('ZRANGE', key_fair(queue, priority), 0, 0)[1]
  local lane = class and redis.call('ZRANGE', key_runnable(queue, priority .. ':' .. class), 0, 0)[1]
  local field = lane and redis.call('ZRANGE', key_lane(queue, priority .. ':' .. lane), 0, 0)[1]
  return number, field and redis.call('HGET', key_limited_messages(queue), field)
end

-- Messages with limits: the number that could run now by priority, and of the others by limit.
local function numbers_of(queue)
  local runnable, blocked = {}, {}
  local flat = redis.call('HGETALL', key_limited(queue))
  for i = 1, #flat, 2 do
    local priority, limit = string.match(flat[i], '^blocked:(%d):(.*)$')
    local number = tonumber(flat[i + 1]) or 0
    if priority then
      blocked[limit], number = (blocked[limit] or 0) + number, -number
    else
      priority = string.match(flat[i], '^all:(%d)$')
    end
    priority = tonumber(priority)
    if priority then runnable[priority] = (runnable[priority] or 0) + number end
  end
  local found = {}
  for limit, number in pairs(blocked) do
    found[#found + 1], found[#found + 2] = limit, number
  end
  return runnable, found
end

local function ready(queue, limited)
  local found = {}
  for priority = 0, 9 do
    local depth, first = 0, nil
    -- Messages of stock clients will be adopted behind the others.
    for _, key in ipairs({key_ready(queue, priority), kombu_key(queue, priority)}) do
      local length = redis.pcall('LLEN', key)
      if type(length) == 'number' and length > 0 then depth, first = depth + length, first or key end
    end
    found[#found + 1] = depth
    local sent_at, eta = '', ''
    if first then sent_at, eta = oldest_of(redis.call('LINDEX', first, -1)) end
    if limited then
      local runnable, blob = in_lanes(queue, priority, limited)
      depth = depth + runnable
      if blob and not first then sent_at, eta = oldest_of(blob) end
      found[#found] = depth
    end
    found[#found + 1], found[#found + 2] = sent_at, eta
  end
  return found
end

local function parked(queue)
  local key = key_parked(queue)
  local number = redis.call('HLEN', key)
  local found, types = {number}, nil
  if number <= TYPES_MOST_LISTED then
    types = redis.call('HGETALL', key)
  else
    types = redis.call('HSCAN', key, 0, 'COUNT', TYPES_MOST_LISTED)[2]
  end
  for i = 1, #types, 2 do
    found[#found + 1] = types[i]
    found[#found + 1] = redis.call('LLEN', key_parked_messages(queue, types[i]))
    found[#found + 1] = types[i + 1]
  end
  return found
end

local function dead(queue)
  local found = {}
  for i = 5, 4 + reasons do found[#found + 1] = redis.call('ZCARD', key_dead(queue, ARGV[i])) end
  return found
end

local out = {NOW, WALL}
for i = 5 + reasons, #ARGV do
  local queue = ARGV[i]
  local limited, blocked = nil, {}
  if redis.call('EXISTS', key_limited(queue)) == 1 then limited, blocked = numbers_of(queue) end
  local first = redis.call('ZRANGE', key_delayed(queue), 0, 0, 'WITHSCORES')[2]
  local delayed = redis.call('ZCARD', key_delayed(queue))
  if limited then
    local due = redis.call('ZRANGE', key_lane_delayed(queue), 0, 0, 'WITHSCORES')[2]
    if due and not (first and tonumber(first) < tonumber(due)) then first = due end
    delayed = delayed + redis.call('ZCARD', key_lane_delayed(queue))
  end
  out[#out + 1] = ready(queue, limited)
  out[#out + 1] = {delayed, first or ''}
  out[#out + 1] = parked(queue)
  out[#out + 1] = dead(queue)
  out[#out + 1] = blocked
end
local nodes = {}
local leases = redis.call('ZRANGE', key_leases(), first_node, first_node + NODES_MOST - 1, 'WITHSCORES')
local epochs = {}
for i = 1, #leases, 2 do epochs[#epochs + 1] = leases[i] end
local abouts = #epochs > 0 and redis.call('HMGET', key_nodes(), unpack(epochs)) or {}
for i = 1, #epochs do
  nodes[#nodes + 1], nodes[#nodes + 2] = epochs[i], leases[2 * i]
  nodes[#nodes + 1] = redis.call('HLEN', key_leased(epochs[i]))
  nodes[#nodes + 1] = abouts[i] or ''
end
out[#out + 1] = nodes
out[#out + 1] = redis.call('HGETALL', key_counts())
return out
