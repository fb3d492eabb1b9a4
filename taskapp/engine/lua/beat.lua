#!lua flags=allow-oom
-- One heartbeat: renew this epoch's lease, reap leases that have ended, take over letters that stay unreported.
-- 3 epoch ('' for a reaper without one), 4 lease ms, 5 crash limit, 6 dead limit, 7 parked ms, 8 maximum gap between
-- two beats of any nodes (ms), 9 the node's description of itself (JSON, '' none).
-- Answers: now, wall, offset, '1' if the lease lives, next lease end (0: none), number reaped,
-- {id, task, reason, queue, number of each letter that this node must report …}, '1' if there is more to do at once.
-- Keeps: one call returns and buries at most a few hundred messages, and checks as many task types.
local epoch, lease = ARGV[3], tonumber(ARGV[4])
local crash_limit, dead_limit = tonumber(ARGV[5]), tonumber(ARGV[6])
local alive = 0
if epoch ~= '' and redis.call('ZSCORE', key_leases(), epoch) then
  redis.call('ZADD', key_leases(), 'XX', NOW + lease, epoch)
  if ARGV[9] ~= '' then redis.call('HSET', key_nodes(), epoch, ARGV[9]) end
  alive = 1
end

-- No node beat for a while: the server was away, and every lease looks dead. Give each node one whole lease.
local tick, reap_after = tonumber(CLOCK[2] or 0) or 0, tonumber(CLOCK[3] or 0) or 0
if tick > 0 and (NOW - tick > tonumber(ARGV[8]) or NOW < tick - 1000) then reap_after = NOW + lease end
if reap_after > NOW + lease then reap_after = NOW + lease end
redis.call('HSET', key_clock(), 'tick', NOW, 'reap_after', reap_after)

local reaped, more = 0, 0
local function reap(dead_epoch)
  local leased, node = key_leased(dead_epoch), key_node(dead_epoch)
  -- The only message of a dead node is the one that killed it, if any did. The last of many is not alone.
  local alone = redis.call('HLEN', leased) == 1 and redis.call('HEXISTS', node, 'crowd') == 0
  local kind = alone and 'crashed' or 'neighbour'
  for _, item in ipairs(held_by(dead_epoch, GIVEN_BACK_MOST - reaped)) do
    move_claimed(dead_epoch, item.tag, item.blob, function()
      give_back(item.queue, item.priority, item.blob, kind, dead_epoch, crash_limit, dead_limit)
    end)
    reaped = reaped + 1
  end
  if redis.call('EXISTS', leased) == 0 then
    redis.call('HINCRBY', key_counts(), 'lost_leases', 1)
    redis.call('ZREM', key_leases(), dead_epoch)
    redis.call('DEL', node)
    redis.call('HDEL', key_nodes(), dead_epoch)
  else
    redis.call('HSET', node, 'crowd', 1)
    more = 1
  end
end

-- Messages parked for too long become dead letters if no living node has their task type. One node at a time checks the
-- task types, some in each of its heartbeats. The types of living nodes are gathered when they are first needed.
local TYPES_AT_ONCE, NODES_AT_ONCE, LETTERS_AT_ONCE, UNREPORTED_MOST, KEEP_SECONDS = 500, 20, 50, 1000, 600
local oldest = NOW - tonumber(ARGV[7])
local looked, is_gathered = 0, false
local room = math.min(LETTERS_AT_ONCE, UNREPORTED_MOST - redis.call('ZCARD', key_unreported()))

local function gather()
  local added = 0
  local living = redis.call('ZRANGE', key_leases(), 0, -1)
  for first = 1, #living, 1000 do
    local last = math.min(first + 999, #living)
    for i, known in ipairs(redis.call('SMISMEMBER', key_living(), unpack(living, first, last))) do
      if known == 0 then
        if added >= NODES_AT_ONCE then return false end
        local fields = redis.call('HKEYS', key_node(living[first + i - 1]))
        for from = 1, #fields, 1000 do
          redis.call('SADD', key_living_types(), unpack(fields, from, math.min(from + 999, #fields)))
        end
        redis.call('SADD', key_living(), living[first + i - 1])
        added = added + 1
      end
    end
  end
  redis.call('EXPIRE', key_living(), KEEP_SECONDS)
  redis.call('EXPIRE', key_living_types(), KEEP_SECONDS)
  return true
end

-- Bury messages of one task type that waited too long; answers false if there are more than one call may bury.
local function expire_parked(queue, task)
  while true do
    local item = redis.call('LINDEX', key_parked_messages(queue, task), -1)
    if not item then break end
    local since = struct.unpack('>d', item)
    if since > oldest then redis.call('HSET', key_parked(queue), task, since) break end
    if room <= 0 then return false end
    room = room - 1
    local blob = string.sub(item, 9)
    local _, priority = header(blob)
    redis.call('RPOP', key_parked_messages(queue, task))
    local ok, problem = pcall(bury_unreported, queue, priority, blob, 'unknown task', '',
      'no node has had this task type for ' .. floor((NOW - since) / 1000) .. ' s', dead_limit)
    if not ok then
      redis.call('RPUSH', key_parked_messages(queue, task), item)
      error(problem)
    end
  end
  forget_if_none_parked(queue, task)
  return true
end

-- Check the task types parked in a queue; answers the cursor to continue from, or nil at the end.
local function sweep_queue(queue, at)
  repeat
    if looked >= TYPES_AT_ONCE then return at end
    local page = redis.call('HSCAN', key_parked(queue), at, 'COUNT', 100)
    looked = looked + math.max(#page[2] / 2, 50)
    for i = 1, #page[2], 2 do
      if tonumber(page[2][i + 1]) <= oldest then
        is_gathered = is_gathered or gather()
        if not is_gathered then return at end
        local wanted = redis.call('SISMEMBER', key_living_types(), 't:' .. page[2][i]) == 1
        if not wanted and not expire_parked(queue, page[2][i]) then return at end
      end
    end
    at = page[1]
  until at == '0'
end

local function sweep()
  local known = redis.call('HMGET', key_parked_sweep(), 'by', 'until', 'queue', 'at')
  local ends = tonumber(known[2] or 0) or 0
  if ends > NOW and ends <= NOW + 2 * lease and known[1] ~= epoch then return end
  local queues = redis.call('SMEMBERS', key_queues())
  table.sort(queues)
  for _, queue in ipairs(queues) do
    if not (known[3] and queue < known[3]) and redis.call('EXISTS', key_parked(queue)) == 1 then
      local at = sweep_queue(queue, queue == known[3] and known[4] or '0')
      if at then
        redis.call('HSET', key_parked_sweep(), 'by', epoch, 'until', NOW + lease, 'queue', queue, 'at', at)
        -- No further letters until the nodes have reported the earlier ones.
        if room > 0 or redis.call('ZCARD', key_unreported()) < UNREPORTED_MOST then more = 1 end
        return
      end
    end
  end
  redis.call('UNLINK', key_living(), key_living_types(), key_parked_sweep())
  -- After a long sweep, do not start the next one at once.
  if known[3] then redis.call('HSET', key_parked_sweep(), 'by', 'nobody', 'until', NOW + lease) end
end

if NOW >= reap_after then
  for _, dead_epoch in ipairs(redis.call('ZRANGEBYSCORE', key_leases(), '-inf', NOW, 'LIMIT', 0, 10)) do
    if reaped < GIVEN_BACK_MOST then reap(dead_epoch) else more = 1 end
  end
  if reaped < LETTERS_AT_ONCE then sweep() end
end
if redis.call('EXISTS', key_slot_checks()) == 1 then lanes().check_slots(lease / 3) end

-- The node that should have failed these tasks has not: it died, or cannot reach the results. A plain consumer, which
-- has no task types, cannot fail them either.
local node = key_node(epoch)
if alive == 1 and redis.call('HLEN', node) > redis.call('HEXISTS', node, 'fence') then
  for _, letter in ipairs(redis.call('ZRANGEBYSCORE', key_unreported(), '-inf', NOW - lease, 'LIMIT', 0, 100)) do
    local queue, _, number = parse_tag(letter)
    local about = redis.call('HGET', key_dead_about(queue), number)
    if about then
      about = cjson.decode(about)
      hand_out(about.id, about.task, about.reason, queue, number)
    else
      redis.call('ZREM', key_unreported(), letter)
    end
  end
end

write_totals()
local next_end = redis.call('ZRANGE', key_leases(), 0, 0, 'WITHSCORES')[2]
return {NOW, WALL, OFFSET, alive, next_end and floor(tonumber(next_end)) or 0, reaped, BURIED, more}
