#!lua flags=allow-oom
-- Pause a schedule or mark it as broken: 3 name, 4 'paused' or 'broken', 5 reason, 6 expected revision ('' any).
-- Answers 1 if it was stopped, 0 if it does not exist or has another revision.
local key = key_schedule(ARGV[3])
local revision = redis.pcall('HGET', key, 'revision')
if type(revision) ~= 'string' then
  -- The key is missing or holds another type: keep the leader from finding it again.
  redis.call('ZREM', key_schedules_due(), ARGV[3])
  return 0
end
if (ARGV[6] ~= '' and ARGV[6] ~= revision) then return 0 end
redis.call('HSET', key, ARGV[4], ARGV[5])
redis.call('ZREM', key_schedules_due(), ARGV[3])
tell_leader(ARGV[3])
return 1
