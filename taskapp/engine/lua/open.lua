#!lua flags=allow-oom
-- Begin an epoch: 3 epoch, 4 lease (ms), 5 the node's description of itself (JSON, '' none), then for each task type of
-- the node its name and its kind of slot (no types: it accepts any). These types get totals of their own.

local lacking = lacks_permission()
if lacking then return redis.error_reply(lacking) end

redis.call('ZADD', key_leases(), NOW + tonumber(ARGV[4]), ARGV[3])
if ARGV[5] ~= '' then redis.call('HSET', key_nodes(), ARGV[3], ARGV[5]) end
if ARGV[6] then redis.call('HSET', key_node(ARGV[3]), 'opened', NOW) end
for i = 6, #ARGV, 2 do
  redis.call('HSET', key_node(ARGV[3]), 't:' .. ARGV[i], ARGV[i + 1])
  announce(ARGV[i])
end
forget_unannounced()
return {NOW, WALL, OFFSET}
