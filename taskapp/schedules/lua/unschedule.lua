#!lua flags=allow-oom
-- Remove a schedule: 3 name. Answers 1 if it existed, else 0.
if redis.call('ZREM', key_schedules(), ARGV[3]) == 0 then return 0 end
redis.call('ZREM', key_schedules_due(), ARGV[3])
redis.call('SREM', key_schedules_config(), ARGV[3])
redis.call('DEL', key_schedule(ARGV[3]), key_schedule_runs(ARGV[3]))
-- Queued ticks stay queued: for one more day, copies of a tick on another broker are recognized.
redis.call('EXPIRE', key_schedule_open(ARGV[3]), 86400)
tell_leader(ARGV[3])
return 1
