#!lua flags=allow-oom
-- Throw away what waits in queue ARGV[3]: ready, delayed and parked. Answers how many. What is leased stays.
local queue, gone = ARGV[3], 0
for priority = 0, 9 do
  local key = ready_key(queue, priority)
  local length = redis.pcall('LLEN', key)
  if type(length) == 'number' then gone = gone + length end
  redis.call('DEL', key)
end
gone = gone + redis.call('ZCARD', key_delayed(queue))
redis.call('DEL', key_delayed(queue), key_delayed_messages(queue))
for _, task in ipairs(redis.call('HKEYS', key_parked(queue))) do
  gone = gone + redis.call('LLEN', key_parked_messages(queue, task))
  redis.call('DEL', key_parked_messages(queue, task))
end
redis.call('DEL', key_parked(queue), key_wake(queue))
return gone
