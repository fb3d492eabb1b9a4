#!lua flags=allow-oom
-- Remove a schedule: 3 name. Answers 1 if it was there.
if redis.call('ZREM', key_schedules(), ARGV[3]) == 0 then return 0 end
redis.call('ZREM', key_schedules_due(), ARGV[3])
redis.call('SREM', key_schedules_config(), ARGV[3])
redis.call('DEL', key_schedule(ARGV[3]), key_schedule_runs(ARGV[3]))
-- What is queued stays queued: for a day another broker's copies of one tick are told apart.
redis.call('EXPIRE', key_schedule_open(ARGV[3]), 86400)
tell_leader(ARGV[3])
return 1
