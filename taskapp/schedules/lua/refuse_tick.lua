#!lua flags=allow-oom
-- Bury an entry of the tick queue that the broker refused: 3 its queue, 4 the entry, 5 reason, 6 number of dead letters to
-- keep, 7 schedule ('' if the entry cannot be read), 8 id of the task, 9 due (ms).
-- Answers 1 if the entry was buried, 0 if it is not in the tick queue.
-- Keeps: the entry goes to the dead letters, byte for byte; its schedule is broken until somebody fixes it.
local ticks = key_ready(ARGV[3], 0)
-- The entry is near the end of the list, as the oldest is sent first.
if not redis.call('LPOS', ticks, ARGV[4], 'RANK', -1, 'MAXLEN', 1000) then return 0 end
redis.call('LREM', ticks, -1, ARGV[4])
bury(ARGV[3], 0, ARGV[4], 'rejected', '', ARGV[5], tonumber(ARGV[6]))
if ARGV[7] == '' or not end_tick(ARGV[7], ARGV[8], ARGV[9], 'REJECTED', 0) then return 1 end
redis.call('HSET', key_schedule(ARGV[7]), 'broken', ARGV[5])
redis.call('ZREM', key_schedules_due(), ARGV[7])
tell_leader(ARGV[7])
return 1
