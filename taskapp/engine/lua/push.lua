-- Push messages: ready ones, or delayed ones if due in the future. All or none.
-- 3 producer ('' for none), 4 number of this push, 5 limits of queues as the producer knows them (JSON, '' none),
-- 6 number of publications, then per publication: channel, event; then any number of
--   queue, priority, count, as many messages that are due now
--   queue, priority, 0, due (ms), id, one message
--   queue, priority, -1, due (ms), id, one message of an outbox: skipped if it was pushed within the last day
--   queue, priority, -2 or -3, due (ms), id, one message with limits; with -3 of an outbox
-- Answers now, wall, offset, then for each message whose unique key is taken: its id, 'existing', 'refused' or 'replaced',
-- and the id of the task that has the key.
-- The error QUEUEFULL names in JSON the queue that has not enough room, its limit, how many messages wait there, and in
-- how many seconds there will be room at the pace of the last minute.
local producer, news = ARGV[3], tonumber(ARGV[6] or 0)
local FIRST, NO_PACE_SECONDS = 7 + 2 * news, 60

-- Answers the place after the arguments of a step, its first message, and the number of messages.
local function extent(i)
  local count = tonumber(ARGV[i + 2])
  local first = count < 1 and i + 5 or i + 3
  return first + math.max(count, 1), first, math.max(count, 1)
end

local function waiting_in(queue)
  local number = redis.call('ZCARD', key_delayed(queue)) + redis.call('ZCARD', key_lane_delayed(queue))
  for priority = 0, 9 do
    local length = redis.pcall('LLEN', key_ready(queue, priority))
    if type(length) == 'number' then number = number + length end
    number = number + tonumber(redis.call('HGET', key_limited(queue), 'all:' .. priority) or 0)
  end
  return number
end

-- After how many seconds nodes will have taken that many messages.
local function seconds_until_taken(queue, number)
  local minute, taken = floor(WALL / 60000), 0
  for n = minute - 1, minute do
    taken = taken + tonumber(redis.call('HGET', key_minute(n), 'received' .. BAR .. queue) or 0)
  end
  return taken == 0 and NO_PACE_SECONDS or number * (60 + WALL % 60000 / 1000) / taken
end

-- Limits set at run time win over those of the producer; 0 means none.
local function check_limits()
  local limits, more = ARGV[5] ~= '' and cjson.decode(ARGV[5]) or {}, {}
  for queue, limit in pairs(CLOCK[4] and cjson.decode(CLOCK[4]) or {}) do limits[queue] = limit end
  local i = FIRST
  while i <= #ARGV do
    local queue, after, _, number = ARGV[i], extent(i)
    if (limits[queue] or 0) > 0 then more[queue] = (more[queue] or 0) + number end
    i = after
  end
  for queue, number in pairs(more) do
    local limit, waiting = limits[queue], waiting_in(queue)
    if waiting + number > limit then
      local seconds = seconds_until_taken(queue, waiting + number - limit)
      redis.pcall('HINCRBY', key_counts(), 'full:' .. queue, 1)
      return redis.error_reply('QUEUEFULL ' ..
        cjson.encode({queue = queue, limit = limit, waiting = waiting, seconds = seconds}))
    end
  end
end

if ARGV[5] and (CLOCK[4] or ARGV[5] ~= '') then
  local refusal = check_limits()
  if refusal then return refusal end
end
if producer ~= '' then
  local key = key_producer(producer)
  if redis.call('GET', key) == 'closed' then return redis.error_reply('CLOSED this push was given up') end
  -- The first write: a full Redis refuses here, before anything is done.
  redis.call('SET', key, ARGV[4], 'EX', 3600)
end
local RELAYED_SECONDS = 86400
local last
local answer = {NOW, WALL, OFFSET}
local i = FIRST
while i <= #ARGV do
  local queue, priority, count = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local after, first = extent(i)
  local due, relayed, has_limits = 0, nil, count < -1
  if count < 1 then
    due = tonumber(ARGV[i + 3])
    relayed = (count == -1 or count == -3) and key_relayed(ARGV[i + 4])
  end
  if relayed and redis.call('EXISTS', relayed) == 1 then
    -- Its relay died before it could delete the row.
  elseif has_limits then
    local kind, other = lanes().push(queue, priority, ARGV[i + 4], ARGV[first], due)
    for _, part in ipairs(kind and {ARGV[i + 4], kind, other} or {}) do answer[#answer + 1] = part end
    if relayed then redis.call('SET', relayed, '', 'EX', RELAYED_SECONDS) end
  elseif due > NOW then
    delay(queue, priority, ARGV[i + 4], ARGV[first], due)
    if relayed then redis.call('SET', relayed, '', 'EX', RELAYED_SECONDS) end
  else
    put_behind(queue, priority, unpack(ARGV, first, after - 1))
    -- Not earlier: a message that could not be queued is pushed again once somebody has mended the cause.
    if relayed then redis.call('SET', relayed, '', 'EX', RELAYED_SECONDS) end
    if queue ~= last then wake(queue); last = queue end
  end
  i = after
end
write_totals()
-- Never an error: the messages are queued by now.
for n = 7, 5 + 2 * news, 2 do redis.pcall('PUBLISH', ARGV[n], ARGV[n + 1]) end
-- For a producer that loses this answer.
if #answer > 3 and producer ~= '' then
  redis.pcall('SET', key_producer_answer(producer), cjson.encode({ARGV[4], unpack(answer, 4)}), 'EX', 3600)
end
return answer
