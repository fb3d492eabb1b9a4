#!lua flags=allow-oom
-- May this message of a tick run? Asked for brokers that are not the engine's: 3 id of the task, 4 which publication of
-- the tick it is, 5 number of the run (grows with each retry), 6 '1' if the broker may have given out this very message
-- before, 7 seconds to remember it.
-- Answers 'run', or why not: 'running', 'ended'.
-- Keeps: of all messages of one tick the first that asks runs; no other does, and this one again only as long as its run
-- has not ended.
local key = key_tick(ARGV[3])
local known = redis.call('HMGET', key, 'copy', 'run', 'ended')
local last, run = tonumber(known[2] or -1), tonumber(ARGV[5])
if run < last then return 'ended' end
if run == last then
  if known[3] then return 'ended' end
  if known[1] ~= ARGV[4] or ARGV[6] ~= '1' then return 'running' end
end
redis.call('HSET', key, 'copy', ARGV[4], 'run', run)
redis.call('HDEL', key, 'ended')
expire(key, tonumber(ARGV[7]))
return 'run'
