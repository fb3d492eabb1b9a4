#!lua flags=allow-oom
-- Begin an epoch: ARGV[3], lease in ms ARGV[4], then the task types of the node (none: it takes any).
redis.call('ZADD', key_leases(), NOW + tonumber(ARGV[4]), ARGV[3])
for i = 5, #ARGV do redis.call('HSET', key_node(ARGV[3]), 't:' .. ARGV[i], 1) end
return {NOW, WALL, OFFSET}
