#!lua flags=allow-oom
-- Stop a schedule for now: 3 name, 4 'paused' or 'broken', 5 why, 6 revision it was read with ('' any).
-- Answers 1 if it was there.
local key = key_schedule(ARGV[3])
local revision = redis.pcall('HGET', key, 'revision')
if type(revision) ~= 'string' then
  -- Nothing is there, or something else: who leads is not to come upon it again.
  redis.call('ZREM', key_schedules_due(), ARGV[3])
  return 0
end
if (ARGV[6] ~= '' and ARGV[6] ~= revision) then return 0 end
redis.call('HSET', key, ARGV[4], ARGV[5])
redis.call('ZREM', key_schedules_due(), ARGV[3])
tell_leader(ARGV[3])
return 1
