-- Replay a dead letter: 3 its queue, 4 its number, 5 the queue to put it into, 6 a message to send instead ('' none).
-- Answers 1 if it existed; the id of the task that has its unique key, if that is taken: it stays dead. Its deliveries and
-- crashes count from 0 again.
local queue, number = ARGV[3], ARGV[4]
local raw = redis.call('HGET', key_dead_raw(queue), number)
if not raw then return 0 end
local about = cjson.decode(redis.call('HGET', key_dead_about(queue), number))
local blob = ARGV[6] ~= '' and ARGV[6] or raw
local version, priority = header(blob)
if version == 0 then priority = about.priority else blob = with_counts(blob, version, priority, 0, 0, NOW) end
if version == 3 then
  local _, _, _, _, id = header(blob)
  local kind, other = lanes().push(ARGV[5], priority, id, blob, 0)
  if kind == 'existing' or kind == 'refused' then return other end
else
  put_behind(ARGV[5], priority, blob)
  wake(ARGV[5])
end
redis.call('ZREM', key_dead(queue, about.reason), number)
redis.call('ZREM', key_unreported(), number .. '.0:0:' .. queue)
redis.call('HDEL', key_dead_raw(queue), number)
redis.call('HDEL', key_dead_about(queue), number)
redis.call('HINCRBY', key_counts(), 'replayed', 1)
return 1
