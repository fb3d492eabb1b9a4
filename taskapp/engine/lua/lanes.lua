-- Where messages with limits wait (version 3). Together with limits.lua and turns.lua this is the body of a function that a
-- script calls, as `lanes()`, only when it meets such a message: others pay nothing for it.
-- A lane holds messages of one task type and one fair key that wait for the same gates, so that its first message speaks
-- for all. A lane is either runnable, and its class (fair key) takes its turn, or it waits at a gate.
-- Place of a lane in its queue: priority:lane:class.

local NO_KEY = '\0' -- class of messages without a fair key; '' is that of messages without limits
local OPENED_MOST, FORGOTTEN_MOST, CHECKED_MOST = 50, 200, 10 -- per call
local REFUSED = 'by its limits: ' -- see dead_letters.py
local LEVEL = 1e10 -- more than virtual time gets to

local M = {}

local function lane_of(task, limits)
  local parts = {task, limits[1]}
  for _, rate in ipairs(limits[2]) do parts[#parts + 1] = 'R' .. rate[1] .. BAR .. rate[2] end
  for _, slot in ipairs(slots_of(limits)) do parts[#parts + 1] = 'S' .. slot[1] .. BAR .. slot[2] end
  return string.sub(redis.sha1hex(table.concat(parts, BAR)), 1, 20)
end

local function class_of(limits) return limits[1] ~= '' and limits[1] or NO_KEY end
local function place_of(priority, lane, class) return priority .. ':' .. lane .. ':' .. class end
local function parts_of_place(place) return string.match(place, '^(%d):(%x+):(.*)$') end
local function key_of_lane(queue, priority, lane) return key_lane(queue, priority .. ':' .. lane) end
local function runnable(queue, priority, class) return key_runnable(queue, priority .. ':' .. class) end

-- Numbers of waiting messages: 'all:<priority>' and, of those, 'blocked:<priority>:<limit>' for each limit that lets some
-- not run.
local function add_to(queue, priority, by)
  if by ~= 0 then redis.call('HINCRBY', key_limited(queue), 'all:' .. priority, by) end
end

local function add_blocked(queue, priority, gate, by)
  if by == 0 then return end
  local field = 'blocked:' .. priority .. ':' .. limit_of_gate(gate)
  if redis.call('HINCRBY', key_limited(queue), field, by) == 0 then redis.call('HDEL', key_limited(queue), field) end
end

-- Start-time fair queueing: virtual time is the start of the class that was served last. A class starts where it ended
-- before, but not in the past.
local VIRTUAL = {}
local function virtual(queue, priority)
  local at = priority .. queue
  VIRTUAL[at] = VIRTUAL[at] or tonumber(redis.call('HGET', key_limited(queue), 'virtual:' .. priority) or 0) or 0
  return VIRTUAL[at]
end

local function start_class(queue, priority, class)
  local fair = key_fair(queue, priority)
  if redis.call('ZSCORE', fair, class) then return end
  local idle = key_fair_idle(queue, priority)
  local ended = redis.call('ZSCORE', idle, class)
  redis.call('ZADD', fair, string.format('%.17g', math.max(virtual(queue, priority), tonumber(ended or 0))), class)
  if ended then redis.call('ZREM', idle, class) end
end

-- Take the turn of a class that has nothing runnable left; it is remembered until virtual time has passed its end.
local function end_class(queue, priority, class, ended)
  if redis.call('EXISTS', runnable(queue, priority, class)) == 1 then return false end
  local fair = key_fair(queue, priority)
  ended = ended or tonumber(redis.call('ZSCORE', fair, class) or 0)
  redis.call('ZREM', fair, class)
  if ended > virtual(queue, priority) then
    redis.call('ZADD', key_fair_idle(queue, priority), string.format('%.17g', ended), class)
  end
  return true
end

local function forget_classes(queue, priority)
  local idle, now = key_fair_idle(queue, priority), string.format('%.17g', virtual(queue, priority))
  local past = redis.call('ZRANGEBYSCORE', idle, '-inf', now, 'LIMIT', 0, FORGOTTEN_MOST)
  if #past > 0 then redis.call('ZREM', idle, unpack(past)) end
end

local WOKEN = {}
local function make_runnable(queue, priority, lane, class, sequence)
  redis.call('ZADD', runnable(queue, priority, class), sequence, lane)
  start_class(queue, priority, class)
  if not WOKEN[queue] then wake(queue) end
  WOKEN[queue] = true
end

-- Whether a key of this name held anything in this script; most hold nothing most of the time.
local HELD = {}
local function is_used(key)
  if HELD[key] == nil then HELD[key] = redis.call('EXISTS', key) == 1 end
  return HELD[key]
end

local function close_opened(queue, place)
  if is_used(key_opened(queue)) then redis.call('HDEL', key_opened(queue), place) end
end

-- Update the runnable lane whose first message has left: NEXT is the sequence number of the next one, if any; ENDED is
-- where the turn of its class ended. Answers whether the class has no turn any more.
local function next_of(queue, priority, lane, class, next_sequence, ended)
  if next_sequence then
    redis.call('ZADD', runnable(queue, priority, class), next_sequence, lane)
    return false
  end
  redis.call('ZREM', runnable(queue, priority, class), lane)
  close_opened(queue, place_of(priority, lane, class))
  return end_class(queue, priority, class, ended)
end

local function first_sequence(key) return redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2] end

-- Let a lane wait at a gate. Among those that wait, the one whose turn is first is let in first.
local function block(queue, priority, lane, class, gate, opens)
  local place = place_of(priority, lane, class)
  local start = tonumber(redis.call('ZSCORE', key_fair(queue, priority), class) or 0)
  redis.call('HSET', key_blocked(queue), place, gate)
  HELD[key_gates()], HELD[key_slot_checks()] = true, true
  local turn = string.format('%.17g', (9 - priority) * LEVEL + start)
  redis.call('ZADD', key_gate_waiters(gate), turn, queue .. BAR .. place)
  if opens then
    redis.call('ZADD', key_gates(), string.format('%.0f', math.ceil(opens)), gate)
  else
    redis.call('ZADD', key_slot_checks(), 'NX', NOW + 1000, gate)
  end
  add_blocked(queue, priority, gate, redis.call('ZCARD', key_of_lane(queue, priority, lane)))
  redis.call('ZREM', runnable(queue, priority, class), lane)
  close_opened(queue, place)
  end_class(queue, priority, class)
end

-- The lane at a gate whose turn is first, with its queue, place, priority, lane and class.
local function first_at(gate)
  local first = redis.call('ZRANGE', key_gate_waiters(gate), 0, 0)[1]
  if not first then return end
  local queue, place = string.match(first, '^(.-)' .. BAR .. '(.*)$')
  return first, queue, place, parts_of_place(place)
end

-- Let the first lane at a gate look whether it may run; answers whether there is one.
local function let_in(gate)
  local waiters, first, queue, place, priority, lane, class = key_gate_waiters(gate), first_at(gate)
  if not first then return false end
  local key = key_of_lane(queue, priority, lane)
  local head = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  if head[1] then
    make_runnable(queue, priority, lane, class, head[2])
    -- Messages up to this sequence number have waited at the gate, not for a node.
    HELD[key_opened(queue)] = true
    redis.call('HSET', key_opened(queue), place, NOW .. ':' .. (redis.call('HGET', key_limited(queue), 'last') or 0))
    add_blocked(queue, priority, gate, -redis.call('ZCARD', key))
  end
  redis.call('HDEL', key_blocked(queue), place)
  redis.call('ZREM', waiters, first)
  return true
end

-- RATE as the message has it whose turn is first at its gate: that one may cost less.
local function rate_of_first(gate, rate)
  local _, queue, _, priority, lane = first_at(gate)
  local field = redis.call('ZRANGE', key_of_lane(queue, priority, lane), 0, 0)[1]
  local blob = field and redis.call('HGET', key_limited_messages(queue), field)
  for _, other in ipairs(blob and limits_of(blob)[2] or {}) do
    if other[1] == rate[1] and other[2] == rate[2] then return other end
  end
  return rate
end

-- A lane was looked at: the next one at each of its gates is let in, or knows when the gate opens.
local function pass_on(limits)
  for _, rate in ipairs(is_used(key_gates()) and limits[2] or {}) do
    local gate = gate_of('R', rate[1], rate[2])
    if redis.call('EXISTS', key_gate_waiters(gate)) == 1 then
      local opens = rate_at((rate[6] or 1) == 1 and rate or rate_of_first(gate, rate))
      if opens > NOW then
        redis.call('ZADD', key_gates(), string.format('%.0f', math.ceil(opens)), gate)
      else
        let_in(gate)
      end
    end
  end
  for _, slot in ipairs(is_used(key_slot_checks()) and slots_of(limits) or {}) do
    local gate = gate_of('S', slot[1], slot[2])
    if redis.call('EXISTS', key_gate_waiters(gate)) == 1 and free_slots(slot[1], slot[2], slot[3]) > 0 then
      let_in(gate)
    end
  end
end

local function into_lane(queue, priority, field, task, limits, in_front)
  local lane, class = lane_of(task, limits), class_of(limits)
  local key, place = key_of_lane(queue, priority, lane), place_of(priority, lane, class)
  local sequence = redis.call('HINCRBY', key_limited(queue), in_front and 'first' or 'last', in_front and -1 or 1)
  redis.call('ZADD', key, sequence, field)
  add_to(queue, priority, 1)
  local is_alone = redis.call('ZCARD', key) == 1 -- an empty lane waits nowhere
  local gate = not is_alone and redis.call('HGET', key_blocked(queue), place)
  if gate then
    add_blocked(queue, priority, gate, 1)
  elseif is_alone or in_front then
    make_runnable(queue, priority, lane, class, sequence)
  end
end

-- Put a message where it waits: in its lane, or among the delayed ones.
local KNOWN = {}
local function put(queue, priority, blob, in_front, due, is_free)
  local _, _, _, _, id, task = header(blob)
  local limits, messages, field = limits_of(blob), key_limited_messages(queue), id
  if not KNOWN[queue] then redis.call('SADD', key_queues(), queue) end
  KNOWN[queue] = true
  if redis.call('HSETNX', messages, field, blob) == 0 then
    field = id .. BAR .. redis.call('HINCRBY', key_limited(queue), 'twins', 1)
    redis.call('HSET', messages, field, blob)
  end
  begin_waiting(limits, id, queue, field, is_free)
  if due and due > NOW then
    redis.call('HSETNX', key_limited(queue), 'last', 0)
    redis.call('ZADD', key_lane_delayed(queue), due, field)
    if redis.call('ZRANGE', key_lane_delayed(queue), 0, 0)[1] == field then wake(queue) end
  else
    into_lane(queue, priority, field, task, limits, in_front)
  end
end

local function leave_lane(queue, priority, field, task, limits)
  local lane, class = lane_of(task, limits), class_of(limits)
  local key, place = key_of_lane(queue, priority, lane), place_of(priority, lane, class)
  add_to(queue, priority, -redis.call('ZREM', key, field))
  local gate = redis.call('HGET', key_blocked(queue), place)
  if gate then
    add_blocked(queue, priority, gate, -1)
    if redis.call('EXISTS', key) == 0 then
      redis.call('HDEL', key_blocked(queue), place)
      redis.call('ZREM', key_gate_waiters(gate), queue .. BAR .. place)
    end
  else
    next_of(queue, priority, lane, class, first_sequence(key))
    pass_on(limits)
  end
end

-- Take a waiting message out of its place for good, or to put it elsewhere. Answers it.
local function remove(queue, field)
  local blob = redis.call('HGET', key_limited_messages(queue), field)
  if not blob then return end
  local _, priority, _, _, id, task = header(blob)
  local limits = limits_of(blob)
  if redis.call('ZREM', key_lane_delayed(queue), field) == 0 then leave_lane(queue, priority, field, task, limits) end
  redis.call('HDEL', key_limited_messages(queue), field)
  return blob, limits, id
end

-- The new message under the id of the one that waits: its envelope, and the strings that follow its body.
local function packed_text(text)
  if #text < 32 then return string.char(0xa0 + #text) .. text end
  return struct.pack('>BB', 0xd9, #text) .. text
end

local function under_id(blob, id, priority)
  local _, _, _, _, own, task, at = struct.unpack('>BBHHBc0Bc0', blob)
  local ok, place = pcall(headers_place, blob)
  place = ok and place or #blob + 1
  local old = string.gsub(packed_text(own), '%W', '%%%0')
  local new = string.gsub(packed_text(id), '%%', '%%%%')
  return struct.pack('>BBHHBc0Bc0', 3, priority, 0, 0, #id, id, #task, task) .. string.sub(blob, at, place - 1)
    .. string.gsub(string.sub(blob, place), old, new)
end

local function replace(has, blob)
  local queue, field = has[2], has[3]
  local before = redis.call('HGET', key_limited_messages(queue), field)
  local _, priority, _, _, id, task = header(before)
  local replaced = under_id(blob, id, priority)
  local _, _, _, _, _, new_task = header(replaced)
  if lane_of(task, limits_of(before)) == lane_of(new_task, limits_of(replaced)) then
    redis.call('HSET', key_limited_messages(queue), field, replaced)
    return
  end
  local due = redis.call('ZSCORE', key_lane_delayed(queue), field)
  local key = key_unique(limits_of(before)[4][1])
  local since = redis.call('HGET', key, 'since')
  remove(queue, field)
  put(queue, priority, replaced, false, due and tonumber(due))
  redis.call('HSET', key, 'since', since)
end

-- Each call pushes a debounced task back, but not further than the longest wait after the first call.
local function debounced(unique, since)
  local due = NOW + unique[5]
  return unique[6] > 0 and math.min(due, since + unique[6]) or due
end

-- One that is due, and waits for a slot or a node, is delayed again.
local function push_back(unique, has)
  local queue, field = has[2], has[3]
  local due = debounced(unique, tonumber(redis.call('HGET', key_unique(unique[1]), 'since') or NOW))
  local is_delayed = redis.call('ZSCORE', key_lane_delayed(queue), field)
  if not is_delayed and due <= NOW then return end
  redis.call('ZADD', key_lane_delayed(queue), due, field)
  if is_delayed then return end
  local blob = redis.call('HGET', key_limited_messages(queue), field)
  local _, priority, _, _, _, task = header(blob)
  leave_lane(queue, priority, field, task, limits_of(blob))
  wake(queue)
end

-- Whether another task has the unique key of a new message: nothing, or how the call ends ('existing', 'refused',
-- 'replaced') and the id of the other task.
local function conflict(limits, id, blob)
  local unique = limits[4]
  if not unique then return end
  local has = holders_of(unique)
  if has[7] and tonumber(has[7]) <= NOW then
    redis.call('UNLINK', key_unique(unique[1]))
    has = {}
  end
  local other = has[1] or has[4] or has[6]
  if not other then return end
  if unique[4] == 'latest' and has[4] and has[4] ~= id and not has[1] then return end
  if has[1] and unique[5] > 0 then push_back(unique, has) end
  if has[1] and has[1] ~= id and (unique[4] == 'replace' or unique[4] == 'latest') then
    replace(has, blob)
    return 'replaced', other
  end
  return unique[4] == 'raise' and other ~= id and 'refused' or 'existing', other
end

-- Push a new message, unless its unique key is taken: then nothing, and the answers of `conflict`.
function M.push(queue, priority, id, blob, due)
  local limits = limits_of(blob)
  local kind, other = conflict(limits, id, blob)
  if kind then
    local _, _, _, _, _, task = header(blob)
    tally('duplicate', task, queue)
    return kind, other
  end
  local unique = limits[4]
  if unique and unique[5] > 0 then due = math.max(due or 0, debounced(unique, NOW)) end
  put(queue, priority, blob, false, due, unique and unique[4] ~= 'latest')
end

-- Queue a message that follows a run. A retry waits in any case; nobody would learn of another whose key is taken, so
-- its task fails.
function M.follow(queue, priority, id, blob, due, own, node, dead_limit)
  local limits = limits_of(blob)
  if own == id then
    put(queue, priority, blob, false, due)
    return
  end
  local kind, other = M.push(queue, priority, id, blob, due)
  if kind == 'existing' or kind == 'refused' then
    bury_unreported(queue, priority, blob, 'rejected', node, REFUSED .. 'the task ' .. other .. ' has its unique key', dead_limit)
  end
end

M.put = put

function M.gate_of_message(queue, blob)
  local _, priority, _, _, _, task = header(blob)
  local limits = limits_of(blob)
  return redis.call('HGET', key_blocked(queue), place_of(priority, lane_of(task, limits), class_of(limits)))
end

-- Delete a waiting message; answers whether it was there.
function M.delete(queue, field)
  local blob, limits, id = remove(queue, field)
  if blob then never_runs(limits, id) end
  return blob ~= nil
end

-- Slots whose claims have gone without a script of this version noticing are free again. A few in each call.
function M.check_slots(every)
  for _, gate in ipairs(redis.call('ZRANGEBYSCORE', key_slot_checks(), '-inf', NOW, 'LIMIT', 0, CHECKED_MOST)) do
    local _, name, key = parts_of_gate(gate)
    local slots, is_over = key_slots(name, key), redis.call('EXISTS', key_gate_waiters(gate)) == 0
    if is_over then
      redis.call('ZREM', key_slot_checks(), gate)
    else
      for _, entry in ipairs(redis.call('SRANDMEMBER', slots, HOLDERS_AT_ONCE)) do
        if not is_held(entry) then redis.call('SREM', slots, entry) end
      end
      redis.call('ZADD', key_slot_checks(), NOW + every, gate)
      let_in(gate)
    end
  end
end

-- A claim has ended: its slots and its key are free. Call it after its message has found its next place.
function M.release(epoch, tag, blob)
  if string.byte(blob, 1) ~= 3 then return end
  local _, _, _, _, id = header(blob)
  local limits = limits_of(blob)
  for _, slot in ipairs(slots_of(limits)) do
    if redis.call('SREM', key_slots(slot[1], slot[2]), holder(epoch, tag)) == 1 then
      let_in(gate_of('S', slot[1], slot[2]))
    end
  end
  end_running(limits, id, epoch, tag)
end

-- What an old node returned: the message in it, with the counts it got there.
function M.unwrapped(blob)
  local version, priority, deliveries, crashes, id, task = header(blob)
  if version == 3 then return blob end
  if version == 2 and id == '' and task == '' and string.byte(blob, 9) == 3 then
    local inner = string.sub(blob, 9)
    if header(inner) == 3 then return with_counts(inner, 3, priority, deliveries, crashes) end
  end
end

-- Begin of a claim: let in what waits at gates that are open now, and messages that are due.
function M.promote(queue)
  for _, gate in ipairs(redis.call('ZRANGEBYSCORE', key_gates(), '-inf', NOW, 'LIMIT', 0, OPENED_MOST)) do
    if let_in(gate) and redis.call('EXISTS', key_gate_waiters(gate)) == 1 then
      -- The one let in sees to it that the next one is; it may wait in a queue that no node consumes.
      redis.call('ZADD', key_gates(), NOW + 1000, gate)
    else
      redis.call('ZREM', key_gates(), gate)
    end
  end
  local delayed = key_lane_delayed(queue)
  local due = redis.call('ZRANGEBYSCORE', delayed, '-inf', NOW, 'WITHSCORES', 'LIMIT', 0, OPENED_MOST)
  for i = 1, #due, 2 do
    local blob = redis.call('HGET', key_limited_messages(queue), due[i])
    if blob then
      local _, priority, _, _, _, task = header(blob)
      local limits = limits_of(blob)
      if limits[4] and limits[4][5] > 0 then
        blob = with_ready_at(blob, tonumber(due[i + 1]))
        redis.call('HSET', key_limited_messages(queue), due[i], blob)
      end
      into_lane(queue, priority, due[i], task, limits, false)
    end
    redis.call('ZREM', delayed, due[i])
  end
end

-- When the next delayed message of QUEUE is due, or the next gate opens (ms); 0: never.
function M.next_due(queue)
  local due = 0
  for _, key in ipairs({key_lane_delayed(queue), key_gates()}) do
    local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
    if first and (due == 0 or tonumber(first) < due) then due = tonumber(first) end
  end
  return due
end

-- Let no message of a rate's key start for DURATION ms. A run only makes a pause longer (IS_OF_RUN): others may know of a
-- later end.
function M.pause(name, key, duration, is_of_run)
  local gate, pause = gate_of('R', name, key), NOW + duration
  local paid, before, each = string.match(redis.call('GET', key_rate(name, key)) or '', '^([^:]*):([^:]*):(.*)$')
  if is_of_run then pause = math.max(pause, tonumber(before) or 0) end
  write_rate(name, key, tonumber(paid) or NOW, pause, tonumber(each))
  local first = redis.call('ZRANGE', key_gate_waiters(gate), 0, 0)[1]
  if not first then return end
  redis.call('ZADD', key_gates(), string.format('%.0f', pause), gate)
  -- Those that wait look again: the gate may open earlier than they know.
  wake(string.match(first, '^(.-)' .. BAR))
end

-- Forget a queue in which nothing with limits waits: its claims look for nothing any more.
function M.forget_if_empty(queue)
  if redis.call('EXISTS', key_limited_messages(queue)) == 1 then return end
  local keys = {key_limited(queue), key_opened(queue), key_blocked(queue)}
  for priority = 0, 9 do keys[#keys + 1] = key_fair_idle(queue, priority) end
  redis.call('UNLINK', unpack(keys))
end
