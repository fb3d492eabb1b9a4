#!lua flags=allow-oom
-- Lead no more: 3 token. Another may lead at once.
if redis.call('HGET', key_beat(), 'token') == ARGV[3] then redis.call('HDEL', key_beat(), 'until', 'leader') end
return 1
