#!lua flags=allow-oom
-- The run of a tick has ended, on a broker that is not the engine's: 3 schedule, 4 id of the task, 5 state, 6 ms it took,
-- 7 which publication of the tick ran, 8 number of the run, 9 seconds to remember it.
-- Answers 1, or 0 if that run is not the one that counts, or has ended before: nothing is changed then.
local key = key_tick(ARGV[4])
local known = redis.call('HMGET', key, 'copy', 'run', 'ended')
if known[2] and (known[1] ~= ARGV[7] or known[2] ~= ARGV[8] or known[3]) then return 0 end
redis.call('HSET', key, 'copy', ARGV[7], 'run', ARGV[8], 'ended', ARGV[5])
expire(key, tonumber(ARGV[9]))
end_tick(ARGV[3], ARGV[4], ARGV[5], ARGV[6])
return 1
