-- Push messages: ready, or delayed when due lies ahead. All or none.
-- 3 producer ('' for none), 4 number of this push, then per message: queue, priority, due (ms, 0 now), id, blob,
-- topic of its event ('' for none), event
local producer = ARGV[3]
if producer ~= '' then
  local key = key_producer(producer)
  if redis.call('GET', key) == 'closed' then return redis.error_reply('CLOSED this push was given up') end
  -- The first write: a full Redis refuses here, before anything was done.
  redis.call('SET', key, ARGV[4], 'EX', 3600)
end
local last
for i = 5, #ARGV, 7 do
  local queue, priority, due = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  if due > NOW then
    delay(queue, priority, ARGV[i + 3], ARGV[i + 4], due)
  else
    put_behind(queue, priority, ARGV[i + 4])
    if queue ~= last then wake(queue); last = queue end
  end
  -- Never an error: the message is queued by now.
  if ARGV[i + 5] ~= '' then redis.pcall('PUBLISH', ARGV[i + 5], ARGV[i + 6]) end
end
return {NOW, WALL, OFFSET}
