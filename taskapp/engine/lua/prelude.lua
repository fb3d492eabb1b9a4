-- Shared by every script: time, message headers, waking, burying.
-- ARGV[2] is the caller's own estimate of the engine's time in ms (0: it has none).

local lanes
local floor = math.floor
local PREDICTED = tonumber(ARGV[2]) or 0
local CLOCK = redis.call('HMGET', key_clock(), 'offset', 'tick', 'reap_after', 'queue_limits')
local OFFSET = tonumber(CLOCK[1] or 0) or 0
local WALL = redis.call('TIME')
WALL = WALL[1] * 1000 + floor(WALL[2] / 1000)
local NOW = WALL + OFFSET

-- The caller's prediction can only be behind the server's time, because a command is carried out after
-- it was sent. So a server that is behind the caller was set back, which is corrected at once. One that
-- is ahead was either slow to answer or set forward; until the caller has seen the answer and knows
-- which (see Clock), the earlier time counts: nothing expires or is promoted too soon.
if PREDICTED > 0 then
  if NOW < PREDICTED - 1000 then
    OFFSET = OFFSET + floor(PREDICTED - NOW)
    redis.call('HSET', key_clock(), 'offset', OFFSET)
    NOW = WALL + OFFSET
  elseif NOW > PREDICTED + 1000 then
    NOW = floor(PREDICTED)
  end
end

-- A tag is claim.index:priority:queue; it records where a message came from. One that begins with 0 holds slots or a
-- unique key.
local function parse_tag(tag)
  local claim, index, priority, queue = string.match(tag, '^(%d+)%.(%d+):(%d+):(.*)$')
  return queue, tonumber(priority), tonumber(claim), tonumber(index)
end

local function queue_of_tag(tag) return (string.match(tag, '^[^:]*:[^:]*:(.*)$')) end

-- Headers: taskapp writes version 1, and 3 for messages with limits; version 2 wraps bytes of other programs once they
-- have counts.
local function header(blob)
  local version = string.byte(blob, 1)
  if version == 1 or version == 2 or version == 3 then
    local ok, _, priority, deliveries, crashes, id, task = pcall(struct.unpack, '>BBHHBc0Bc0', blob)
    if ok and priority <= 9 then return version, priority, deliveries, crashes, id, task end
  end
  return 0, 0, 0, 0, '', ''
end

local function as_it_came(blob)
  if string.byte(blob, 1) == 2 and string.byte(blob, 7) == 0 and string.byte(blob, 8) == 0 then
    return string.sub(blob, 9)
  end
  return blob
end

-- Where the headers of a taskapp message begin: after its body, which may be large, its content type and encoding.
local function headers_place(blob)
  local version, _, _, _, id, task = header(blob)
  local at = 10 + #id + #task
  if version == 3 then at = at + 2 + struct.unpack('>H', blob, at - 1) end
  if (version ~= 1 and version ~= 3) or string.byte(blob, at - 1) ~= 0x98 then return end
  local sizes = {[0xd9] = '>B', [0xda] = '>H', [0xdb] = '>I4', [0xc4] = '>B', [0xc5] = '>H', [0xc6] = '>I4'}
  for _ = 1, 3 do
    local kind = string.byte(blob, at) or 0
    if kind >= 0xa0 and kind <= 0xbf then
      at = at + 1 + kind - 0xa0
    elseif kind == 0xc0 then
      at = at + 1
    elseif sizes[kind] then
      local size, start = struct.unpack(sizes[kind], blob, at + 1)
      at = start + size
    else
      return
    end
  end
  return at
end

-- A task may run once it is submitted, or due. If it could not (it was dead, parked, held by a node that died, or
-- rescheduled), its first header tells since when it may: name and double, in MessagePack. Answers the bytes to put in
-- front of the other headers, where these bytes begin and where the others do; nil for a message of another program.
local READY_AT = '\176taskapp_ready_at\203'
local function ready_header(blob, ms)
  local ok, at = pcall(headers_place, blob)
  local kind = ok and at and string.byte(blob, at)
  local count, first
  if kind and kind >= 0x80 and kind <= 0x8f then
    count, first = kind - 0x80, at + 1
  elseif kind == 0xde and #blob > at + 2 then
    count, first = struct.unpack('>H', blob, at + 1)
  end
  if not count or count == 65535 then return end
  local rest = first
  if string.sub(blob, first, first + #READY_AT - 1) == READY_AT then
    rest = first + #READY_AT + 8
  else
    count = count + 1
  end
  local head = count < 16 and string.char(0x80 + count) or struct.pack('>BH', 0xde, count)
  return head .. READY_AT .. struct.pack('>d', ms / 1000), at, rest
end

local function with_ready_at(blob, ms)
  local head, at, rest = ready_header(blob, ms)
  return head and string.sub(blob, 1, at - 1) .. head .. string.sub(blob, rest) or blob
end

-- The message with new counts and, with READY_MS, the time since when it may run: copied once, because it may be large.
local function with_counts(blob, version, priority, deliveries, crashes, ready_ms)
  deliveries, crashes = math.min(deliveries, 65535), math.min(crashes, 65535)
  if version == 0 then return struct.pack('>BBHHBB', 2, priority, deliveries, crashes, 0, 0) .. blob end
  local counts, head, at, rest = struct.pack('>HH', deliveries, crashes), nil, nil, nil
  if ready_ms then head, at, rest = ready_header(blob, ready_ms) end
  if not head then return string.sub(blob, 1, 2) .. counts .. string.sub(blob, 7) end
  return string.sub(blob, 1, 2) .. counts .. string.sub(blob, 7, at - 1) .. head .. string.sub(blob, rest)
end

-- Never an error: the message is where it belongs, and nodes look for it on their own, too.
local function wake(queue)
  local key = key_wake(queue)
  if redis.pcall('LLEN', key) == 0 then redis.pcall('LPUSH', key, '1') end
end

-- The lists of stock clients, from which messages are adopted.
local function kombu_key(queue, priority)
  return priority == 0 and key_kombu(queue) or key_kombu_priority(queue, priority)
end

-- Rename a ready key that is not a list, so that the queue keeps working.
local function set_aside(key, queue)
  redis.call('RENAME', key, key_aside(queue, NOW .. ':' .. redis.call('HINCRBY', key_counts(), 'set_aside', 1)))
end

local function put(command, queue, priority, ...)
  local key = key_ready(queue, priority)
  local answer = redis.pcall(command, key, ...)
  if type(answer) == 'table' and answer.err then
    if not string.find(answer.err, 'WRONGTYPE', 1, true) then error(answer.err) end
    set_aside(key, queue)
    redis.call(command, key, ...)
  end
end

local function put_behind(queue, priority, ...) put('LPUSH', queue, priority, ...) end
local function put_in_front(queue, priority, ...) put('RPUSH', queue, priority, ...) end

local function delay(queue, priority, id, blob, due)
  -- A message of another program gets a header, which keeps its priority.
  if header(blob) == 0 then blob = with_counts(blob, 0, priority, 0, 0) end
  redis.call('SADD', key_queues(), queue)
  redis.call('ZADD', key_delayed(queue), due, id) -- first: an id without a message is forgotten when it is due
  redis.call('HSET', key_delayed_messages(queue), id, blob)
  if redis.call('ZRANGE', key_delayed(queue), 0, 0)[1] == id then wake(queue) end
end

-- Queue one message of ours, which may have limits.
local function enqueue(queue, priority, blob, in_front)
  if string.byte(blob, 1) == 3 then
    lanes().put(queue, priority, blob, in_front)
  else
    put(in_front and 'RPUSH' or 'LPUSH', queue, priority, blob)
  end
end

-- Free what a claim holds in addition to its message; call it once that is in its next place.
local function release(epoch, tag, blob)
  if string.byte(tag, 1) == 48 then lanes().release(epoch, tag, blob) end
end

-- Totals of task events, added up here by queue, task type and kind of event, as cheaply as possible because it happens
-- for every task. write_totals writes them at the end of a script.
local TYPES_MOST, BAR, MINUTE_SECONDS = 200, '\31', 7200
local TALLY, RUNS, WAITS = {}, {}, {}
local function entry(of, name)
  local known = of[name]
  if not known then
    known = {}
    of[name] = known
  end
  return known
end

local function tally(what, task, queue, by)
  local counts = entry(entry(TALLY, queue), task)
  counts[what] = (counts[what] or 0) + (by or 1)
end

-- A histogram: the number of values by bucket, and their sum in us.
local function spread(of, name, le, us)
  local known = of[name]
  if not known then
    known = {le = {}, us = 0, number = 0}
    of[name] = known
  end
  known.le[le] = (known.le[le] or 0) + 1
  known.us = known.us + us
  known.number = known.number + 1
end

local function count_run(queue, task, what, run_le, run_us, wait_le, wait_us)
  tally(what, task, queue)
  if run_le ~= '' then spread(RUNS, task, run_le, run_us) end
  if wait_le ~= '' then spread(WAITS, queue, wait_le, wait_us) end
end

-- Only nodes announce task types: a message may contain any text.
local function announce(task) redis.pcall('SADD', key_types(), task) end

-- Names that no node has announced lose their own totals.
local function forget_unannounced()
  local names = redis.pcall('SDIFF', key_total_types(), key_types())
  if not names.err and #names > 0 then redis.pcall('SREM', key_total_types(), unpack(names)) end
end

-- The first announced task types have their own totals; all other names share the label 'other'.
local LABELS = {}
local function label_of(task)
  if not LABELS[task] then
    -- Never an error here: counting must not fail if the key of the set holds something else.
    local known = redis.pcall('SISMEMBER', key_total_types(), task) == 1
    if not known and redis.pcall('SISMEMBER', key_types(), task) == 1 then
      local size = redis.pcall('SCARD', key_total_types())
      known = type(size) == 'number' and size < TYPES_MOST and redis.pcall('SADD', key_total_types(), task) == 1
    end
    LABELS[task] = known and task or 'other'
  end
  return LABELS[task]
end

-- Fields: 'what|type|queue' of runs, 'run|le|type' and 'wait|le|queue' of histograms, 'run_us|type' and 'wait_us|queue'
-- of their sums; per minute 'what|queue', 'waits|queue' and 'wait_us|queue'. The bar is a byte that no name contains.
local function write_totals()
  if next(TALLY) == nil then return end
  local minute, recent = key_minute(floor(WALL / 60000)), {}
  -- Never an error: the counted events have already happened.
  local function write(by, ...)
    redis.pcall('HINCRBY', key_totals(), table.concat({...}, BAR), string.format('%.0f', by))
  end
  for queue, types in pairs(TALLY) do
    for task, counts in pairs(types) do
      for what, number in pairs(counts) do
        write(number, what, label_of(task), queue)
        local field = what .. BAR .. queue
        recent[field] = (recent[field] or 0) + number
      end
    end
  end
  for task, runs in pairs(RUNS) do
    for le, number in pairs(runs.le) do write(number, 'run', le, label_of(task)) end
    write(runs.us, 'run_us', label_of(task))
  end
  for queue, waits in pairs(WAITS) do
    for le, number in pairs(waits.le) do write(number, 'wait', le, queue) end
    write(waits.us, 'wait_us', queue)
    recent['waits' .. BAR .. queue], recent['wait_us' .. BAR .. queue] = waits.number, waits.us
  end
  for field, by in pairs(recent) do redis.pcall('HINCRBY', minute, field, string.format('%.0f', by)) end
  redis.pcall('EXPIRE', minute, MINUTE_SECONDS)
end

local function drop_surplus(queue, reason, limit)
  local surplus = redis.call('ZCARD', key_dead(queue, reason)) - limit
  if surplus <= 0 then return end
  -- After the limit was lowered the surplus may be large; each burial drops a few.
  for _, oldest in ipairs(redis.call('ZRANGE', key_dead(queue, reason), 0, math.min(surplus, 20) - 1)) do
    redis.call('ZREM', key_dead(queue, reason), oldest)
    redis.call('HDEL', key_dead_raw(queue), oldest)
    redis.call('HDEL', key_dead_about(queue), oldest)
    redis.call('HINCRBY', key_counts(), 'dropped:' .. reason, 1)
  end
end

-- Bury: keep the bytes as received, with a summary; at most LIMIT letters per queue and reason.
local function bury(queue, priority, blob, reason, node, detail, limit)
  local _, _, deliveries, crashes, id, task = header(blob)
  local number = redis.call('INCR', key_dead_number(queue))
  redis.call('SADD', key_queues(), queue)
  -- Scores follow the numbers, even if the engine's time goes back; Redis would order equal scores by the text of the
  -- number: 10 before 9.
  local newest = redis.call('ZRANGE', key_dead(queue, reason), -1, -1, 'WITHSCORES')[2]
  local score = math.max(NOW + number % 1024 / 1024, newest and tonumber(newest) + 1 / 1024 or 0)
  redis.call('ZADD', key_dead(queue, reason), string.format('%.17g', score), number)
  redis.call('HSET', key_dead_raw(queue), number, as_it_came(blob))
  redis.call('HSET', key_dead_about(queue), number, cjson.encode({
    reason = reason, queue = queue, priority = priority, deliveries = deliveries, crashes = crashes,
    id = id, task = task, node = node, error = detail, buried_at = NOW}))
  redis.pcall('HINCRBY', key_counts(), 'buried:' .. reason, 1)
  tally('dead', task, queue)
  pcall(drop_surplus, queue, reason, limit)
  return number, id, task
end

-- A letter whose task has not failed yet is unreported, under a name like a tag; the node that settles it fails the
-- task, once.
local BURIED = {}
local function hand_out(id, task, reason, queue, number)
  redis.call('ZADD', key_unreported(), NOW, number .. '.0:0:' .. queue)
  for _, part in ipairs({id, task, reason, queue, tostring(number)}) do BURIED[#BURIED + 1] = part end
end

local function bury_unreported(queue, priority, blob, reason, node, detail, limit)
  local number, id, task = bury(queue, priority, blob, reason, node, detail, limit)
  hand_out(id, task, reason, queue, number)
end

-- Return a claimed message. kind: 'unstarted' counts nothing, 'retry' a delivery, 'crashed' a
-- crash of its own, 'neighbour' a crash that it may not have caused.
local function give_back(queue, priority, blob, kind, node, crash_limit, dead_limit, due, tag)
  local version, _, deliveries, crashes, id, task = header(blob)
  if kind == 'crashed' then tally('crashed', task, queue) end
  if kind ~= 'unstarted' then deliveries = deliveries + 1 end
  if kind == 'crashed' then
    crashes = crashes + 1
  elseif kind == 'neighbour' then
    -- Never enough to be buried: nothing shows that one of many tasks in a dead process killed it.
    crashes = math.max(crashes, math.min(crashes + 1, crash_limit - 1))
  end
  if kind == 'crashed' and crashes >= crash_limit then
    blob = with_counts(blob, version, priority, deliveries, crashes)
    bury_unreported(queue, priority, blob, 'crashed', node, 'its process died ' .. crashes .. ' times while running it',
      dead_limit)
    return
  end
  local is_early = due and due > NOW
  if kind ~= 'unstarted' then
    blob = with_counts(blob, version, priority, deliveries, crashes, is_early and due or NOW)
  elseif is_early then
    blob = with_ready_at(blob, due) -- otherwise it has been waiting all along
  end
  if version == 3 then
    lanes().put(queue, priority, blob, true, due)
  elseif is_early then
    delay(queue, priority, id ~= '' and id or tag, blob, due)
  else
    put_in_front(queue, priority, blob)
    wake(queue)
  end
end

-- Store a result for the holder of a claim: the latest one wins, but a stored success stays.
local function store_result(key, value, seconds)
  -- Anything that is not a result is overwritten.
  local head = redis.pcall('GETRANGE', key, 0, 30)
  if type(head) == 'string' and string.match(head, '^{"status": ?"SUCCESS"') then return end
  if seconds > 0 then redis.call('SET', key, value, 'EX', seconds) else redis.call('SET', key, value) end
  redis.call('PUBLISH', key, value)
end

-- Add the record of a finished task to the stream. An error of the stream does not affect the task.
local function add_finished(most, record)
  local key = key_finished()
  local before = redis.pcall('XLEN', key)
  local added = redis.pcall('XADD', key, 'MAXLEN', '~', most, '*', 'r', record)
  local dropped = 1
  if not (type(added) == 'table' and added.err) then dropped = before + 1 - redis.call('XLEN', key) end
  if dropped > 0 then redis.call('HINCRBY', key_counts(), 'finished_dropped', dropped) end
end

-- Update the sets of schedules that are not due; one that is broken and paused counts as broken.
local function note_state(name)
  local known = redis.call('HMGET', key_schedule(name), 'paused', 'broken')
  redis.call(known[2] and 'SADD' or 'SREM', key_schedules_broken(), name)
  redis.call((known[1] and not known[2]) and 'SADD' or 'SREM', key_schedules_paused(), name)
end

-- Wake the leader after a schedule changed. The count is for a leader that missed the token.
local function tell_leader(name)
  note_state(name)
  redis.call('HINCRBY', key_beat(), 'changes', 1)
  redis.call('LPUSH', key_schedules_wake(), '1')
  redis.call('LTRIM', key_schedules_wake(), 0, 0)
end

-- Ticks that a schedule has sent and whose end is not known; many more than the last few that are shown may be open.
-- Bounded, because some never end: those that a broker expired, or that were purged.
local OPEN_MOST = 20000
local function open_tick(name, id, due)
  local key = key_schedule_open(name)
  redis.call('ZADD', key, WALL, due .. ':' .. id)
  local surplus = redis.call('ZCARD', key) - OPEN_MOST
  if surplus > 0 then redis.call('ZREMRANGEBYRANK', key, 0, surplus - 1) end
end

-- Any task can name a schedule in its headers. Answers whether the schedule has an open tick with this id and due time,
-- and, by position, the tick as shown, if it still is.
local function find_tick(name, id, due)
  local is_open = redis.call('ZSCORE', key_schedule_open(name), due .. ':' .. id) ~= false
  local shown = {}
  for position, text in ipairs(redis.call('LRANGE', key_schedule_runs(name), 0, -1)) do
    local tick = cjson.decode(text)
    if tick.id == id and tick.due == tonumber(due) and tick.state ~= 'SKIPPED' and tick.state ~= 'WAITING' then
      shown[position - 1] = tick
      is_open = is_open or tick.state == 'QUEUED'
    end
  end
  return is_open, shown
end

local function show_tick(name, position, tick) redis.call('LSET', key_schedule_runs(name), position, cjson.encode(tick)) end

local function queue_waiting_tick(name, id)
  local key = key_schedule(name)
  local waiting = redis.call('HMGET', key, 'waiting_queue', 'waiting_priority', 'waiting_message')
  redis.call('HDEL', key, 'waiting', 'waiting_queue', 'waiting_priority', 'waiting_message')
  for position, text in ipairs(redis.call('LRANGE', key_schedule_runs(name), 0, -1)) do
    local tick = cjson.decode(text)
    if tick.id == id and tick.state == 'WAITING' then
      tick.state, tick.sent = 'QUEUED', WALL
      show_tick(name, position - 1, tick)
      open_tick(name, id, string.format('%.0f', tick.due))
    end
  end
  enqueue(waiting[1], tonumber(waiting[2]), with_ready_at(waiting[3], NOW))
  wake(waiting[1])
  redis.call('HSET', key, 'unfinished', id, 'unfinished_at', NOW)
  redis.call('HINCRBY', key, 'runs', 1)
end

-- End a tick: queue the tick that waited for it; pause a schedule that keeps failing. Answers whether it is a tick of
-- that schedule; otherwise nothing changes.
local function end_tick(name, id, due, state, took)
  local key = key_schedule(name)
  local known = redis.call('HMGET', key, 'revision', 'unfinished', 'waiting', 'pause_after', 'paused')
  if not known[1] then return false end
  local is_open, shown = find_tick(name, id, due)
  if not is_open and next(shown) == nil then return false end
  redis.call('ZREM', key_schedule_open(name), due .. ':' .. id)
  for position, tick in pairs(shown) do
    tick.state, tick.ended, tick.took = state, WALL, tonumber(took)
    show_tick(name, position, tick)
  end
  -- A replayed letter has already counted as a failure.
  if state == 'SUCCESS' then
    redis.call('HDEL', key, 'failures')
  elseif state == 'FAILURE' and is_open
    and redis.call('HINCRBY', key, 'failures', 1) == tonumber(known[4] or 0) and not known[5] then
    redis.call('HSET', key, 'paused', 'failed ' .. known[4] .. ' times in a row')
    redis.call('ZREM', key_schedules_due(), name)
    note_state(name)
  end
  if known[2] == id then
    redis.call('HDEL', key, 'unfinished', 'unfinished_at')
    if known[3] then queue_waiting_tick(name, known[3]) end
  end
  return true
end

local function expire(key, seconds)
  if seconds > 0 then redis.call('EXPIRE', key, seconds) end
end

-- Begin a chord, replacing one with the same id.
local function begin_chord(chord, size, about, finish, seconds)
  redis.call('UNLINK', key_chord(chord), key_chord_parts(chord))
  redis.call('HSET', key_chord(chord), 'about', about, 'finish', finish)
  if size ~= '0' then redis.call('HSET', key_chord(chord), 'size', size) end
  expire(key_chord(chord), seconds)
end

-- Count a part of a chord. The last part puts the message that finishes it in front of QUEUE, in the same step;
-- answers 1 if there is no such message. A slot counts once, however often its task runs.
local function count_part(chord, slot, is_success, value, seconds, queue)
  local known = redis.call('HMGET', key_chord(chord), 'size', 'extra', 'finish', 'sent')
  -- Nothing is kept for a chord that has finished or expired.
  if known[4] or not known[3] then return 0 end
  local before = redis.call('HGET', key_chord_parts(chord), slot)
  if not (before and string.sub(before, 1, 1) == '1') then
    redis.call('HSET', key_chord_parts(chord), slot, is_success .. value)
    expire(key_chord_parts(chord), seconds)
  end
  if not known[1] then return 0 end
  if redis.call('HLEN', key_chord_parts(chord)) < tonumber(known[1]) + (tonumber(known[2] or 0) or 0) then return 0 end
  local finish = known[3]
  if not finish or finish == '' then return 1 end
  local _, priority = header(finish)
  put_in_front(queue, priority, with_ready_at(finish, NOW))
  redis.call('HSET', key_chord(chord), 'sent', 1)
  wake(queue)
  return 0
end

-- Move a claimed message with MOVE, which puts it elsewhere. The user's permissions may change while nodes run, a script
-- stops at the first command that is refused, and Redis undoes nothing: so the claim ends first, once it is certain that
-- it can be written again if the message cannot be put elsewhere.
local function move_claimed(epoch, tag, blob, move)
  local leased = key_leased(epoch)
  redis.call('HSET', leased, tag, blob)
  redis.call('HDEL', leased, tag)
  local ok, problem = pcall(move)
  if not ok then
    redis.call('HSET', leased, tag, blob)
    error(problem)
  end
  release(epoch, tag, blob)
end

-- Maximum number of claims that one call returns; about 10 us each.
local GIVEN_BACK_MOST = 100

-- About MOST of the messages that an epoch holds, last claimed first, so that the first ends up in front. If it holds
-- more than a thousand, any of them: sorting takes too long. Those are read page by page, and the node's key keeps the
-- cursor: from 0, each call would walk the emptied part of the hash again.
local function held_by(epoch, most)
  local leased, tags = key_leased(epoch), nil
  if redis.call('HLEN', leased) <= 1000 then
    tags = redis.call('HKEYS', leased)
  else
    local page = redis.call('HSCAN', leased, redis.call('HGET', key_node(epoch), 'at') or '0', 'COUNT', most)
    redis.call('HSET', key_node(epoch), 'at', page[1])
    tags = {}
    for i = 1, #page[2], 2 do tags[#tags + 1] = page[2][i] end
    most = #tags
  end
  local ages, tag_of, items = {}, {}, {}
  for _, tag in ipairs(tags) do
    -- Numbers sort five times as fast as values that need a comparison function.
    local claim, index = string.match(tag, '^(%d+)%.(%d+)')
    local age = claim * 65536 + index
    if not tag_of[age] then ages[#ages + 1] = age end
    tag_of[age] = tag
  end
  table.sort(ages)
  for i = #ages, math.max(#ages - most, 0) + 1, -1 do
    local tag = tag_of[ages[i]]
    local queue, priority = parse_tag(tag)
    items[#items + 1] = {tag = tag, queue = queue, priority = priority, blob = redis.call('HGET', leased, tag)}
  end
  return items
end

local function park(queue, task, blob)
  redis.call('SADD', key_queues(), queue)
  redis.call('HSETNX', key_parked(queue), task, NOW)
  redis.call('LPUSH', key_parked_messages(queue, task), struct.pack('>d', NOW) .. blob)
end

-- Forget a task type without parked messages.
local function forget_if_none_parked(queue, task)
  if redis.call('EXISTS', key_parked_messages(queue, task)) == 0 then redis.call('HDEL', key_parked(queue), task) end
end

-- A script stops at the first command that its user may not run, and Redis undoes nothing: a user who may pop a message
-- but not store it would lose it. So a node starts only if it may run every command that moves messages. Answers the
-- refusal, or nil.
local function lacks_permission()
  local hash, list, set = key_probe('h'), key_probe('l'), key_probe('s')
  local sorted, text = key_probe('z'), key_probe('t')
  for _, command in ipairs({
    {'UNLINK', hash, list, set, sorted, text},
    {'HSET', hash, 'p', ''}, {'HSETNX', hash, 'p', ''}, {'HINCRBY', hash, 'n', 1}, {'HGET', hash, 'p'},
    {'HMGET', hash, 'p'}, {'HEXISTS', hash, 'p'}, {'HLEN', hash}, {'HSCAN', hash, 0}, {'HGETALL', hash},
    {'HDEL', hash, 'p', 'n'},
    {'LPUSH', list, ''}, {'RPUSH', list, ''}, {'LLEN', list}, {'LINDEX', list, 0}, {'LRANGE', list, 0, 0},
    {'LSET', list, 0, ''}, {'RPOP', list, 1}, {'LTRIM', list, 0, 0},
    {'SADD', set, ''}, {'SISMEMBER', set, ''}, {'SCARD', set}, {'SRANDMEMBER', set}, {'SREM', set, ''},
    {'ZADD', sorted, 1, ''}, {'ZSCORE', sorted, ''}, {'ZCARD', sorted}, {'ZRANGE', sorted, 0, 0},
    {'ZRANGEBYSCORE', sorted, 0, 1}, {'ZREM', sorted, ''}, {'ZREMRANGEBYSCORE', sorted, 0, 1},
    {'SET', text, 1}, {'INCR', text}, {'GET', text}, {'EXPIRE', text, 1}, {'PEXPIRE', text, 9999},
    {'PEXPIREAT', text, '9999999999999'},
    {'EXISTS', text}, {'RENAME', text, text},
    {'PUBLISH', text, ''}, {'UNLINK', hash, list, set, sorted, text},
  }) do
    local answer = redis.pcall(unpack(command))
    if type(answer) == 'table' and answer.err then
      return 'NOPERM a node needs ' .. command[1] .. ': ' .. answer.err
    end
  end
end
