#!lua flags=allow-oom
-- Delete dead letters permanently: 3 queue, then numbers. Answers how many existed.
local queue, purged = ARGV[3], 0
for i = 4, #ARGV do
  local about = redis.call('HGET', key_dead_about(queue), ARGV[i])
  if about then
    redis.call('ZREM', key_dead(queue, cjson.decode(about).reason), ARGV[i])
    redis.call('HDEL', key_dead_raw(queue), ARGV[i])
    redis.call('HDEL', key_dead_about(queue), ARGV[i])
    purged = purged + 1
  end
end
redis.call('HINCRBY', key_counts(), 'purged', purged)
return purged
