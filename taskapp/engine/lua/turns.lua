-- How a claim chooses among the lanes of a queue and priority: the class whose turn begins first, and in it the lane with
-- the message that has waited longest. The end of a function, see lanes.lua.

-- Per claim: lanes at gates that are closed, messages; per queue and priority: lanes without room here.
local LOOKS_MOST, TAKEN_MOST, LEFT_MOST, DROPPED_MOST = 48, 100, 48, 10

local WEIGHTS
local function weight_of(class)
  if WEIGHTS == nil then WEIGHTS = redis.call('EXISTS', key_weights()) == 1 end
  local weight = WEIGHTS and tonumber(redis.call('HGET', key_weights(), class) or 1) or 1
  return weight > 0 and weight or 1
end

-- The gate that is closed for a message, when it opens (nil: when a slot is free), and its slots; or nil, and what to
-- charge its rates.
local function refused_by(limits)
  local charges = {}
  for i, rate in ipairs(limits[2]) do
    local opens, paid, pause, each = rate_at(rate)
    if opens > NOW then return gate_of('R', rate[1], rate[2]), opens end
    charges[i] = {paid, pause, each}
  end
  for _, slot in ipairs(slots_of(limits)) do
    if free_slots(slot[1], slot[2], slot[3]) <= 0 then return gate_of('S', slot[1], slot[2]), nil, slot end
  end
  return nil, charges
end

-- A message that waited at a gate could not run before that opened.
local function since_opened(queue, place, sequence, blob)
  local opened = is_used(key_opened(queue)) and redis.call('HGET', key_opened(queue), place)
  if not opened then return blob end
  local ms, last = string.match(opened, '^(%d+):(%-?%d+)$')
  local seen = tonumber(sequence)
  return seen > 0 and seen <= tonumber(last) and with_ready_at(blob, tonumber(ms)) or blob
end

local function has_gates(limits) return #limits[2] > 0 or #limits[3] > 0 or limits[4] ~= nil end

-- The id of a running task that makes room for the next one of its key.
local function running_id(slot)
  local entry = redis.call('SRANDMEMBER', key_slots(slot[1], slot[2]))
  local epoch, tag = string.match(entry or '', '^([^|]*)|(.*)$')
  local blob = epoch and redis.call('HGET', key_leased(epoch), tag)
  if not blob then return end
  local _, _, _, _, id = header(blob)
  return id
end

-- One turn at the first message of a lane: 'taken', 'left' (no room for its task type here), 'blocked' or 'gone'.
local function look(queue, priority, class, lane, claim)
  local place, key = place_of(priority, lane, class), key_of_lane(queue, priority, lane)
  local first = redis.call('ZRANGE', key, 0, 1, 'WITHSCORES')
  local field = first[1]
  local blob = field and redis.call('HGET', key_limited_messages(queue), field)
  if not blob then
    if field then redis.call('ZREM', key, field) end
    next_of(queue, priority, lane, class, first[4])
    return 'gone'
  end
  local _, _, _, _, id, task = header(blob)
  local limits = limits_of(blob)
  if not claim.has_room(task) then
    claim.leave()
    pass_on(limits)
    return 'left'
  end
  local gate, opens, slot = refused_by(limits)
  if gate and slot and slot[4] == 'drop' and claim.dropped < DROPPED_MOST then
    claim.dropped = claim.dropped + 1
    tally('dropped', task, queue)
    bury_unreported(queue, priority, blob, 'rejected', '', REFUSED .. slot[1] ..
      ' had no free slot', math.huge)
    remove(queue, field)
    never_runs(limits, id)
    return 'gone'
  end
  if gate then
    if slot and slot[4] == 'cancel' then claim.revoke(running_id(slot)) end
    block(queue, priority, lane, class, gate, opens)
    pass_on(limits)
    return 'blocked'
  end
  if has_gates(limits) then blob = since_opened(queue, place, first[2], blob) end
  local epoch, tag = claim.epoch, claim.take(queue, priority, blob, task, #slots_of(limits) > 0 or limits[4] ~= nil)
  redis.call('HSET', key_leased(epoch), tag, blob) -- before it leaves its lane
  for i, rate in ipairs(limits[2]) do write_rate(rate[1], rate[2], unpack(opens[i])) end
  for _, taken in ipairs(slots_of(limits)) do
    redis.call('SADD', key_slots(taken[1], taken[2]), holder(epoch, tag))
  end
  begin_running(limits, id, epoch, tag)
  redis.call('ZREM', key, field)
  redis.call('HDEL', key_limited_messages(queue), field)
  return 'taken', limits, first[4]
end

-- One turn of a class, from its lane at position AT on; answers whether something was taken, and the next position.
local function turn(queue, priority, class, start, claim)
  local at = 0
  while claim.looks < LOOKS_MOST and claim.left < LEFT_MOST do
    local lane = redis.call('ZRANGE', runnable(queue, priority, class), at, at)[1]
    if not lane then
      if at == 0 then end_class(queue, priority, class) end
      return at == 0
    end
    local what, limits, next_sequence = look(queue, priority, class, lane, claim)
    if what == 'left' then
      at, claim.left = at + 1, claim.left + 1
    elseif what ~= 'taken' then
      claim.looks = claim.looks + 1
    else
      local ended = start + 1 / weight_of(class)
      VIRTUAL[priority .. queue] = math.max(virtual(queue, priority), start)
      if not next_of(queue, priority, lane, class, next_sequence, ended) then
        redis.call('ZADD', key_fair(queue, priority), 'XX', string.format('%.17g', ended), class)
      end
      if has_gates(limits) then pass_on(limits) end
      claim.taken = claim.taken + 1
      return true
    end
  end
  return true
end

-- Claim from a queue and priority while CLAIM wants more. Messages without limits are a class of their own.
function M.serve(queue, priority, claim)
  local taken_before = claim.taken
  claim.left = 0
  local key, fair, at, is_plain = key_limited(queue), key_fair(queue, priority), 0, true
  local plain_ended = tonumber(redis.call('HGET', key, 'plain:' .. priority) or 0) or 0
  local before = virtual(queue, priority)
  while claim.wants() do
    if claim.looks >= LOOKS_MOST or claim.taken >= TAKEN_MOST then
      claim.is_over = true -- the rest is for the next claim
      break
    end
    local first = claim.left < LEFT_MOST and redis.call('ZRANGE', fair, at, at, 'WITHSCORES') or {}
    local plain_start = math.max(virtual(queue, priority), plain_ended)
    if not first[1] then
      if is_plain then claim.plain() end
      break
    elseif is_plain and plain_start <= tonumber(first[2]) then
      is_plain = claim.plain(1)
      if is_plain then VIRTUAL[priority .. queue], plain_ended = plain_start, plain_start + 1 / weight_of('') end
    elseif not turn(queue, priority, first[1], tonumber(first[2]), claim) then
      at = at + 1
    end
  end
  add_to(queue, priority, taken_before - claim.taken)
  forget_classes(queue, priority)
  if virtual(queue, priority) ~= before then
    redis.call('HSET', key, 'virtual:' .. priority, string.format('%.17g', virtual(queue, priority)),
      'plain:' .. priority, string.format('%.17g', plain_ended))
  end
end

return M
