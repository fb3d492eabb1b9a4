-- Change the due time of a delayed message: 3 queue, 4 id, 5 due (ms), 6 message to keep instead, if given.
-- Answers 1 if it existed.
local function reschedule(delayed, messages)
  local blob = redis.call('HGET', messages, ARGV[4])
  if not blob or not redis.call('ZSCORE', delayed, ARGV[4]) then return 0 end
  redis.call('HSET', messages, ARGV[4], with_ready_at(ARGV[6] or blob, tonumber(ARGV[5])))
  redis.call('ZADD', delayed, 'XX', ARGV[5], ARGV[4])
  if redis.call('ZRANGE', delayed, 0, 0)[1] == ARGV[4] then wake(ARGV[3]) end
  return 1
end

if reschedule(key_delayed(ARGV[3]), key_delayed_messages(ARGV[3])) == 1 then return 1 end
return reschedule(key_lane_delayed(ARGV[3]), key_limited_messages(ARGV[3]))
