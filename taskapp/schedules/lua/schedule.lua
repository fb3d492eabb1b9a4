-- Write a schedule: 3 name, 4 'add', 'replace' or 'edit', 5 expected revision ('' any), 6 definition (JSON),
-- 7 due (ms, '' never, '=' unchanged), 8 send time (ms), 9 'config' or '', 10 failures after which it pauses (0 never),
-- 11 reason to pause it now ('' leaves that unchanged).
-- Answers {its revision}, or {0, reason}: 'exists', 'gone', 'changed'.
local name, mode, key = ARGV[3], ARGV[4], key_schedule(ARGV[3])
local known = redis.call('HMGET', key, 'revision', 'paused')
if mode == 'add' and known[1] then return {0, 'exists'} end
if mode == 'edit' and not known[1] then return {0, 'gone'} end
if ARGV[5] ~= '' and known[1] ~= ARGV[5] then return {0, 'changed'} end
local revision = redis.call('HINCRBY', key, 'revision', 1)
redis.call('HSET', key, 'about', ARGV[6], 'pause_after', ARGV[10])
if ARGV[7] ~= '=' then redis.call('HSET', key, 'due', ARGV[7]) end
redis.call('HDEL', key, 'broken')
if ARGV[11] ~= '' then redis.call('HSET', key, 'paused', ARGV[11]) end
redis.call('ZADD', key_schedules(), 0, name)
redis.call('PERSIST', key_schedule_open(name))
redis.call(ARGV[9] == 'config' and 'SADD' or 'SREM', key_schedules_config(), name)
local due = redis.call('HGET', key, 'due') or ''
if due == '' or known[2] or ARGV[11] ~= '' then
  redis.call('ZREM', key_schedules_due(), name)
elseif ARGV[7] ~= '=' then
  redis.call('ZADD', key_schedules_due(), ARGV[8], name)
else
  -- A schedule that was broken has no entry.
  redis.call('ZADD', key_schedules_due(), 'NX', due, name)
end
tell_leader(name)
return {revision}
