-- Give a delayed message another due time: 3 queue, 4 id, 5 due (ms). Answers 1 if it was there.
if not redis.call('ZSCORE', key_delayed(ARGV[3]), ARGV[4]) then return 0 end
redis.call('ZADD', key_delayed(ARGV[3]), 'XX', ARGV[5], ARGV[4])
if redis.call('ZRANGE', key_delayed(ARGV[3]), 0, 0)[1] == ARGV[4] then wake(ARGV[3]) end
return 1
