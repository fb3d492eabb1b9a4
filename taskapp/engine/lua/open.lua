#!lua flags=allow-oom
-- Begin an epoch: ARGV[3], lease in ms ARGV[4], what the node says of itself ARGV[5] (JSON, '' nothing), then for each
-- task type of the node its name and the kind of slot it takes (none: it takes any). They have counts of their own.
redis.call('ZADD', key_leases(), NOW + tonumber(ARGV[4]), ARGV[3])
if ARGV[5] ~= '' then redis.call('HSET', key_nodes(), ARGV[3], ARGV[5]) end
if ARGV[6] then redis.call('HSET', key_node(ARGV[3]), 'opened', NOW) end
for i = 6, #ARGV, 2 do
  redis.call('HSET', key_node(ARGV[3]), 't:' .. ARGV[i], ARGV[i + 1])
  announce(ARGV[i])
end
forget_unannounced()
return {NOW, WALL, OFFSET}
