-- Set how many messages may wait in a queue, whatever producers say: 3 queue, 4 limit (0: none), '' to clear.
-- Answers 1 if that changed something.
local limits = CLOCK[4] and cjson.decode(CLOCK[4]) or {}
local limit = tonumber(ARGV[4])
if limits[ARGV[3]] == limit then return 0 end
limits[ARGV[3]] = limit
if next(limits) == nil then
  redis.call('HDEL', key_clock(), 'queue_limits')
else
  redis.call('HSET', key_clock(), 'queue_limits', cjson.encode(limits))
end
return 1
