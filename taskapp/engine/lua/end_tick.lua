#!lua flags=allow-oom
-- The run of a tick has ended, on a broker that is not the engine's: 3 schedule, 4 id of the task, 5 due (ms), 6 state,
-- 7 ms it took, 8 which publication of the tick ran, 9 number of the run, 10 seconds to remember it.
-- Answers 1, or 0 if that run is not the one that counts, has ended before, or is no tick of that schedule: nothing is
-- changed then.
local key = key_tick(ARGV[4])
local known = redis.call('HMGET', key, 'copy', 'run', 'ended')
if known[2] and (known[1] ~= ARGV[8] or known[2] ~= ARGV[9] or known[3]) then return 0 end
if not end_tick(ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]) then return 0 end
redis.call('HSET', key, 'copy', ARGV[8], 'run', ARGV[9], 'ended', ARGV[6])
expire(key, tonumber(ARGV[10]))
return 1
