#!lua flags=allow-oom
-- May this message of a tick run? Asked for brokers that are not the engine's: 3 schedule, 4 id of the task, 5 due (ms),
-- 6 which publication of the tick it is, 7 number of the run (grows with each retry), 8 '1' if the broker may have given
-- out this very message before, 9 seconds to remember it.
-- Answers 'run', or why not: 'running', 'ended'.
-- Keeps: of all messages of one tick the first that asks runs; no other does, and this one again only as long as its run
-- has not ended. What the schedule has not sent is no tick: it runs, and takes no tick's place.
local key = key_tick(ARGV[4])
local known = redis.call('HMGET', key, 'copy', 'run', 'ended')
local last, run = tonumber(known[2] or -1), tonumber(ARGV[7])
if not known[2] then
  local is_open, shown = find_tick(ARGV[3], ARGV[4], ARGV[5])
  if not is_open and next(shown) == nil then return 'run' end
end
if run < last then return 'ended' end
if run == last then
  if known[3] then return 'ended' end
  if known[1] ~= ARGV[6] or ARGV[8] ~= '1' then return 'running' end
end
redis.call('HSET', key, 'copy', ARGV[6], 'run', run)
redis.call('HDEL', key, 'ended')
expire(key, tonumber(ARGV[9]))
return 'run'
