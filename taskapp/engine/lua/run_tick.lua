#!lua flags=allow-oom
-- Decide whether this message of a tick may run, for brokers other than Redis: 3 schedule, 4 task id, 5 due (ms),
-- 6 publication of the tick, 7 number of the run (increases with each retry), 8 '1' if the broker may have delivered
-- this very message before, 9 seconds to remember it.
-- Answers 'run', or why not: 'running', 'ended'.
-- Keeps: the first message of a tick that asks may run, and no other; it may run again only until its run has ended.
-- A message that the schedule has not sent is not a tick: it runs, and does not count as one.
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
