#!lua flags=allow-oom
-- Delete a delayed message, or one with limits that waits: 3 queue, 4 id. Answers 1 if it existed.
if redis.call('ZREM', key_delayed(ARGV[3]), ARGV[4]) == 1 then
  redis.call('HDEL', key_delayed_messages(ARGV[3]), ARGV[4])
elseif redis.call('HEXISTS', key_limited_messages(ARGV[3]), ARGV[4]) == 0 or not lanes().delete(ARGV[3], ARGV[4]) then
  return 0
end
redis.call('HINCRBY', key_counts(), 'cancelled', 1)
return 1
