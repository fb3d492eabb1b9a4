-- Push messages: ready ones, or delayed ones if due in the future. All or none.
-- 3 producer ('' for none), 4 number of this push, 5 number of publications, then per publication: channel, event;
-- then any number of
--   queue, priority, count, as many messages that are due now
--   queue, priority, 0, due (ms), id, one message
--   queue, priority, -1, due (ms), id, one message of an outbox: skipped if it was pushed within the last day
--   queue, priority, -2 or -3, due (ms), id, one message with limits; with -3 of an outbox
-- Answers now, wall, offset, then for each message whose unique key is taken: its id, 'existing', 'refused' or 'replaced',
-- and the id of the task that has the key.
local producer, news = ARGV[3], tonumber(ARGV[5] or 0)
if producer ~= '' then
  local key = key_producer(producer)
  if redis.call('GET', key) == 'closed' then return redis.error_reply('CLOSED this push was given up') end
  -- The first write: a full Redis refuses here, before anything is done.
  redis.call('SET', key, ARGV[4], 'EX', 3600)
end
local RELAYED_SECONDS = 86400
local last
local answer = {NOW, WALL, OFFSET}
local i = 6 + 2 * news
while i <= #ARGV do
  local queue, priority, count = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local first, due, relayed, has_limits = i + 3, 0, nil, false
  if count < 1 then
    first, due = i + 5, tonumber(ARGV[i + 3])
    relayed = (count == -1 or count == -3) and key_relayed(ARGV[i + 4])
    has_limits = count < -1
    count = 1
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
    put_behind(queue, priority, unpack(ARGV, first, first + count - 1))
    -- Not earlier: a message that could not be queued is pushed again once somebody has mended the cause.
    if relayed then redis.call('SET', relayed, '', 'EX', RELAYED_SECONDS) end
    if queue ~= last then wake(queue); last = queue end
  end
  i = first + count
end
-- Never an error: the messages are queued by now.
for n = 6, 4 + 2 * news, 2 do redis.pcall('PUBLISH', ARGV[n], ARGV[n + 1]) end
-- For a producer that loses this answer.
if #answer > 3 and producer ~= '' then
  redis.pcall('SET', key_producer_answer(producer), cjson.encode({ARGV[4], unpack(answer, 4)}), 'EX', 3600)
end
return answer
