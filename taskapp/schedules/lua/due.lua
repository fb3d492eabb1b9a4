-- What is due in a while: 3 from and 4 until when (ms, wall clock, as ZRANGEBYSCORE has it), 5 how many at most.
-- Answers {wall clock, how many changes there were, name, to be sent at, hash as a list, …}.
local found = redis.call('ZRANGEBYSCORE', key_schedules_due(), ARGV[3], ARGV[4], 'WITHSCORES', 'LIMIT', 0, ARGV[5])
local answer = {WALL, redis.call('HGET', key_beat(), 'changes') or ''}
for i = 1, #found, 2 do
  local fields = redis.pcall('HGETALL', key_schedule(found[i]))
  answer[#answer + 1] = found[i]
  answer[#answer + 1] = found[i + 1]
  -- Empty: it is gone, or something else has its key.
  answer[#answer + 1] = fields.err and {} or fields
end
return answer
