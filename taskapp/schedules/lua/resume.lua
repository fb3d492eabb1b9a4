-- Resume a schedule: 3 name, 4 expected revision, 5 due (ms, '' never), 6 send time (ms).
-- Answers 1, or 0 if it has another revision.
local key = key_schedule(ARGV[3])
if redis.call('HGET', key, 'revision') ~= ARGV[4] then return 0 end
redis.call('HINCRBY', key, 'revision', 1)
redis.call('HSET', key, 'due', ARGV[5])
redis.call('HDEL', key, 'paused', 'broken', 'failures')
if ARGV[5] ~= '' then redis.call('ZADD', key_schedules_due(), ARGV[6], ARGV[3]) end
tell_leader(ARGV[3])
return 1
