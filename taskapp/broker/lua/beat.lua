#!lua flags=allow-oom
-- One heartbeat: renew this epoch's lease, reap those that ended, take over letters that stay untold.
-- 3 epoch ('' for a reaper that holds none), 4 lease ms, 5 crash limit, 6 dead limit, 7 parked ms, 8 how long
-- the server may have been silent (ms), 9 what the node says of itself (JSON, '' nothing).
-- Answers: now, wall, offset, '1' if the lease lives, next lease end (0: none), reaped,
-- {id, task, reason, queue, number of letters this node is to tell of …}
local epoch, lease = ARGV[3], tonumber(ARGV[4])
local crash_limit, dead_limit = tonumber(ARGV[5]), tonumber(ARGV[6])
local alive = 0
if epoch ~= '' and redis.call('ZSCORE', key_leases(), epoch) then
  redis.call('ZADD', key_leases(), 'XX', NOW + lease, epoch)
  if ARGV[9] ~= '' then redis.call('HSET', key_nodes(), epoch, ARGV[9]) end
  alive = 1
end

-- Nobody beat for a while: the server was away, and every lease looks dead. Give all one whole lease.
local tick, reap_after = tonumber(CLOCK[2] or 0) or 0, tonumber(CLOCK[3] or 0) or 0
if tick > 0 and (NOW - tick > tonumber(ARGV[8]) or NOW < tick - 1000) then reap_after = NOW + lease end
if reap_after > NOW + lease then reap_after = NOW + lease end
redis.call('HSET', key_clock(), 'tick', NOW, 'reap_after', reap_after)

local reaped = 0
local function reap(dead_epoch)
  local leased = key_leased(dead_epoch)
  -- One message alone in a dead node is the one that killed it, or nobody is.
  local kind = redis.call('HLEN', leased) == 1 and 'crashed' or 'neighbour'
  for _, item in ipairs(held_by(leased)) do
    give_back(item.queue, item.priority, item.blob, kind, dead_epoch, crash_limit, dead_limit)
    redis.call('HDEL', leased, item.tag)
    reaped = reaped + 1
  end
  if redis.call('EXISTS', leased) == 0 then
    redis.call('HINCRBY', key_counts(), 'lost_leases', 1)
    redis.call('ZREM', key_leases(), dead_epoch)
    redis.call('DEL', key_node(dead_epoch))
    redis.call('HDEL', key_nodes(), dead_epoch)
  end
end

if NOW >= reap_after then
  for _, dead_epoch in ipairs(redis.call('ZRANGEBYSCORE', key_leases(), '-inf', NOW, 'LIMIT', 0, 10)) do
    if reaped < 1000 then reap(dead_epoch) end
  end
  -- What was parked too long and no living node has goes to the dead letters.
  local oldest = NOW - tonumber(ARGV[7])
  for _, queue in ipairs(redis.call('SMEMBERS', key_queues())) do
    local parked = redis.call('HGETALL', key_parked(queue))
    for i = 1, #parked, 2 do
      local task, wanted = parked[i], false
      if tonumber(parked[i + 1]) <= oldest then
        for _, living in ipairs(redis.call('ZRANGE', key_leases(), 0, -1)) do
          if redis.call('HEXISTS', key_node(living), 't:' .. task) == 1 then wanted = true end
        end
        local items = not wanted and redis.call('LRANGE', key_parked_messages(queue, task), -100, -1) or {}
        for j = #items, 1, -1 do
          local since = struct.unpack('>d', items[j])
          if since > oldest then redis.call('HSET', key_parked(queue), task, since) break end
          local blob = string.sub(items[j], 9)
          local _, priority = header(blob)
          bury_untold(queue, priority, blob, 'unknown task', '', 'no node has had this task type for ' ..
            floor((NOW - since) / 1000) .. ' s', dead_limit)
          redis.call('RPOP', key_parked_messages(queue, task))
        end
        forget_if_none_parked(queue, task)
      end
    end
  end
end

-- Whoever was to fail these tasks has not: it died, or cannot reach the results. A plain consumer cannot either.
local node = key_node(epoch)
if alive == 1 and redis.call('HLEN', node) > redis.call('HEXISTS', node, 'fence') then
  for _, letter in ipairs(redis.call('ZRANGEBYSCORE', key_untold(), '-inf', NOW - lease, 'LIMIT', 0, 100)) do
    local queue, _, number = parse_tag(letter)
    local about = redis.call('HGET', key_dead_about(queue), number)
    if about then
      about = cjson.decode(about)
      hand_out(about.id, about.task, about.reason, queue, number)
    else
      redis.call('ZREM', key_untold(), letter)
    end
  end
end

write_totals()
local next_end = redis.call('ZRANGE', key_leases(), 0, 0, 'WITHSCORES')[2]
return {NOW, WALL, OFFSET, alive, next_end and floor(tonumber(next_end)) or 0, reaped, BURIED}
