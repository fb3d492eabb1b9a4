#!lua flags=allow-oom
-- Give up leadership, so that another beat can lead at once: 3 token. Answers 1.
if redis.call('HGET', key_beat(), 'token') == ARGV[3] then redis.call('HDEL', key_beat(), 'until', 'leader') end
return 1
