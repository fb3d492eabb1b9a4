#!lua flags=allow-oom
-- Delete a delayed message: 3 queue, 4 id. Answers 1 if it existed.
if redis.call('ZREM', key_delayed(ARGV[3]), ARGV[4]) == 0 then return 0 end
redis.call('HDEL', key_delayed_messages(ARGV[3]), ARGV[4])
redis.call('HINCRBY', key_counts(), 'cancelled', 1)
return 1
