#!lua flags=allow-oom
-- Record the end of a tick's run on a broker other than Redis: 3 schedule, 4 id of the task, 5 due (ms), 6 state,
-- 7 duration (ms), 8 publication of the tick that ran, 9 number of the run, 10 seconds to remember it.
-- Answers 1; or 0, without changing anything, if another run counts, this one has ended before, or the schedule has no
-- such tick.
local key = key_tick(ARGV[4])
local known = redis.call('HMGET', key, 'copy', 'run', 'ended')
if known[2] and (known[1] ~= ARGV[8] or known[2] ~= ARGV[9] or known[3]) then return 0 end
if not end_tick(ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]) then return 0 end
redis.call('HSET', key, 'copy', ARGV[8], 'run', ARGV[9], 'ended', ARGV[6])
expire(key, tonumber(ARGV[10]))
return 1
