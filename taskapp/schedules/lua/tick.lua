-- Queue ticks and advance their schedules, each in one step. 3 token ('' for a manual run or backfill), 4 lease (ms),
-- 5 number of ticks to keep per schedule, 6 number of publications; then per publication: channel, event; then per
-- schedule: name, expected revision, expected due (ms), next due (ms, '' none), send time (ms), number of dropped due
-- times, overlap policy, ms after which a run counts as finished, maximum runs (0 no limit), number of ticks;
-- then per tick: due (ms), id, queue, priority, message.
-- Answers {0} if another leads; else {wall clock (ms), per schedule: 'done' or 'changed', ids of runs to cancel, …}.
-- Keeps: only the leader queues ticks; a due time that has passed stays passed, even if the schedule is moved back.
local token, keeps, news = ARGV[3], tonumber(ARGV[5]), tonumber(ARGV[6])
if token ~= '' then
  local beat = redis.call('HMGET', key_beat(), 'token', 'until')
  if beat[1] ~= token or (tonumber(beat[2] or 0) or 0) <= NOW then return {0} end
  redis.call('HSET', key_beat(), 'until', NOW + ARGV[4], 'tick_at', WALL)
end

local woken = {}
local function queue_tick(queue, priority, blob)
  enqueue(queue, priority, with_ready_at(blob, NOW)) -- the message was prepared before it was due
  if not woken[queue] then wake(queue); woken[queue] = true end
end

local function note(name, tick)
  redis.call('LPUSH', key_schedule_runs(name), cjson.encode(tick))
  redis.call('LTRIM', key_schedule_runs(name), 0, keeps - 1)
end

-- Handle one tick; return whether it is queued, and the id of a run to cancel.
local function send(name, key, i, overlap, limit)
  local tick = {due = tonumber(ARGV[i]), id = ARGV[i + 1], sent = WALL, state = 'QUEUED'}
  local known = redis.call('HMGET', key, 'unfinished', 'unfinished_at')
  local runs = known[1] and NOW - tonumber(known[2]) < limit
  if runs and overlap == 'skip' then
    tick.state = 'SKIPPED'
    redis.call('HINCRBY', key, 'skipped', 1)
    note(name, tick)
    return false
  end
  if runs and overlap == 'queue' then
    tick.state = redis.call('HEXISTS', key, 'waiting') == 1 and 'SKIPPED' or 'WAITING'
    if tick.state == 'SKIPPED' then
      redis.call('HINCRBY', key, 'skipped', 1)
    else
      redis.call('HSET', key, 'waiting', ARGV[i + 1], 'waiting_queue', ARGV[i + 2], 'waiting_priority', ARGV[i + 3],
        'waiting_message', ARGV[i + 4])
    end
    note(name, tick)
    return false
  end
  queue_tick(ARGV[i + 2], tonumber(ARGV[i + 3]), ARGV[i + 4])
  redis.call('HSET', key, 'unfinished', tick.id, 'unfinished_at', NOW)
  open_tick(name, tick.id, ARGV[i])
  note(name, tick)
  return true, runs and overlap == 'cancel' and known[1] or nil
end

local function move_on(name, key, next_due, next_at)
  redis.call('HSET', key, 'due', next_due)
  if next_due ~= '' then
    redis.call('ZADD', key_schedules_due(), next_at, name)
  else
    redis.call('ZREM', key_schedules_due(), name)
  end
end

local answer = {WALL}
local i = 7 + 2 * news
while i <= #ARGV do
  local name, most, count = ARGV[i], tonumber(ARGV[i + 8]), tonumber(ARGV[i + 9])
  local key, first, cancel = key_schedule(name), i + 10, {}
  local known = redis.call('HMGET', key, 'revision', 'due', 'paused', 'broken')
  if known[1] ~= ARGV[i + 1] or (token ~= '' and (known[2] ~= ARGV[i + 2] or known[3] or known[4])) then
    answer[#answer + 1] = 'changed'
  else
    local counts = redis.call('HMGET', key, 'runs', 'passed')
    local runs, passed = tonumber(counts[1] or 0), tonumber(counts[2] or 0)
    if token ~= '' then
      -- The first write: a full Redis refuses it before anything has changed.
      move_on(name, key, ARGV[i + 3], ARGV[i + 4])
      if ARGV[i + 5] ~= '0' then redis.call('HINCRBY', key, 'missed', ARGV[i + 5]) end
    end
    for n = 0, count - 1 do
      if token == '' then
        send(name, key, first + 5 * n, ARGV[i + 6], tonumber(ARGV[i + 7]))
      elseif tonumber(ARGV[first + 5 * n]) > passed then
        if most > 0 and runs >= most then break end
        redis.call('HSET', key, 'passed', ARGV[first + 5 * n])
        local is_sent, canceled = send(name, key, first + 5 * n, ARGV[i + 6], tonumber(ARGV[i + 7]))
        cancel[#cancel + 1] = canceled
        if is_sent then runs = redis.call('HINCRBY', key, 'runs', 1) end
      end
    end
    if token ~= '' and most > 0 and runs >= most then move_on(name, key, '', 0) end
    answer[#answer + 1] = 'done'
  end
  answer[#answer + 1] = cancel
  i = first + 5 * count
end
-- With pcall, so that nothing fails once the messages are queued.
for n = 7, 5 + 2 * news, 2 do redis.pcall('PUBLISH', ARGV[n], ARGV[n + 1]) end
return answer
