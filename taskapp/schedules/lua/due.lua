-- Read schedules that are due soon: 3 from and 4 until (ms, wall clock, in ZRANGEBYSCORE's syntax), 5 limit.
-- Answers {wall clock, number of changes so far, then per schedule: name, send time (ms), hash as a list}.
local found = redis.call('ZRANGEBYSCORE', key_schedules_due(), ARGV[3], ARGV[4], 'WITHSCORES', 'LIMIT', 0, ARGV[5])
local answer = {WALL, redis.call('HGET', key_beat(), 'changes') or ''}
for i = 1, #found, 2 do
  local fields = redis.pcall('HGETALL', key_schedule(found[i]))
  answer[#answer + 1] = found[i]
  answer[#answer + 1] = found[i + 1]
  -- Empty if the schedule is gone, or its key holds another type.
  answer[#answer + 1] = fields.err and {} or fields
end
return answer
