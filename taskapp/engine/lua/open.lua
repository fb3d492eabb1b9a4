#!lua flags=allow-oom
-- Begin an epoch: 3 epoch, 4 lease (ms), 5 the node's description of itself (JSON, '' none), then for each task type of
-- the node its name and its kind of slot (no types: it accepts any). These types get totals of their own.

-- A script stops at the first command that its user may not run, and Redis undoes nothing: a user who may pop a message but
-- not store it would lose it. So a node starts only if it may run every command that moves messages.
local leased, list, set, sorted, text = key_leased(ARGV[3]), key_probe('l'), key_probe('s'), key_probe('z'), key_probe('t')
for _, command in ipairs({
  {'UNLINK', list, set, sorted, text},
  {'HSET', leased, 'p', ''}, {'HSETNX', leased, 'p', ''}, {'HINCRBY', leased, 'n', 1}, {'HGET', leased, 'p'},
  {'HMGET', leased, 'p'}, {'HEXISTS', leased, 'p'}, {'HLEN', leased}, {'HSCAN', leased, 0}, {'HDEL', leased, 'p', 'n'},
  {'LPUSH', list, ''}, {'RPUSH', list, ''}, {'LLEN', list}, {'LINDEX', list, 0}, {'LRANGE', list, 0, 0},
  {'LSET', list, 0, ''}, {'RPOP', list, 1}, {'LTRIM', list, 0, 0},
  {'SADD', set, ''}, {'SISMEMBER', set, ''}, {'SCARD', set}, {'SRANDMEMBER', set}, {'SREM', set, ''},
  {'ZADD', sorted, 1, ''}, {'ZSCORE', sorted, ''}, {'ZCARD', sorted}, {'ZRANGE', sorted, 0, 0},
  {'ZRANGEBYSCORE', sorted, 0, 1}, {'ZREM', sorted, ''},
  {'SET', text, 1}, {'INCR', text}, {'GET', text}, {'EXPIRE', text, 1},
  {'PEXPIREAT', text, '9999999999999'}, {'EXISTS', text}, {'RENAME', text, text},
  {'PUBLISH', text, ''}, {'UNLINK', list, set, sorted, text},
}) do
  local answer = redis.pcall(unpack(command))
  if type(answer) == 'table' and answer.err then
    return redis.error_reply('NOPERM a node needs ' .. command[1] .. ': ' .. answer.err)
  end
end

redis.call('ZADD', key_leases(), NOW + tonumber(ARGV[4]), ARGV[3])
if ARGV[5] ~= '' then redis.call('HSET', key_nodes(), ARGV[3], ARGV[5]) end
if ARGV[6] then redis.call('HSET', key_node(ARGV[3]), 'opened', NOW) end
for i = 6, #ARGV, 2 do
  redis.call('HSET', key_node(ARGV[3]), 't:' .. ARGV[i], ARGV[i + 1])
  announce(ARGV[i])
end
forget_unannounced()
return {NOW, WALL, OFFSET}
