#!lua flags=allow-oom
-- Claim up to WANT messages, or about half a MiB, from the queues in strict order, under the lease of an epoch.
-- 3 epoch, 4 number of this claim, 5 want, 6 '1' to start at the bottom, 7 maximum for each kind of slot
-- ('async:90,thread:2'; '' for any), 8 number of queues, the queues, then task types to pass over.
-- Answers: now, wall, offset, next due (0: none), '1' if messages were left for others, number set aside (or {this number,
-- {id, task, reason, queue, number of each letter that this node must report …}, ids of running tasks to revoke}),
-- tag, blob, tag, blob …
local epoch, number, want = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local queue_count = tonumber(ARGV[8])
local PASSED_OVER_MOST = 256 -- messages without a free slot to look past
local PROMOTED_MOST = 200 -- per queue
local BYTES_MOST = 524288 -- ends a claim, whatever it wanted
local POPPED_MOST = 50 -- per call: the last batch may exceed BYTES_MOST
local TYPES_LISTED_MOST = 100 -- parked task types of one queue up to which all are checked
local leased = key_leased(epoch)

if not redis.call('ZSCORE', key_leases(), epoch) then return redis.error_reply('LEASELOST this lease has ended') end
local fence = redis.call('HGET', key_node(epoch), 'fence')
if fence and number <= tonumber(fence) then return {NOW, WALL, OFFSET, 0, 0, 0} end

local queues, passed_over, passing = {}, {}, false
for i = 9, 8 + queue_count do queues[#queues + 1] = ARGV[i] end
for i = 9 + queue_count, #ARGV do passed_over[ARGV[i]] = true; passing = true end

-- promote due messages
local next_due = 0
for _, queue in ipairs(queues) do
  local key = key_delayed(queue)
  local head = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  if head[1] and tonumber(head[2]) <= NOW then
    local ids = redis.call('ZRANGEBYSCORE', key, '-inf', NOW, 'LIMIT', 0, PROMOTED_MOST)
    local blobs = redis.call('HMGET', key_delayed_messages(queue), unpack(ids))
    redis.call('HDEL', key_delayed_messages(queue), unpack(ids))
    local refusal
    for i, id in ipairs(ids) do
      local blob = blobs[i]
      if blob then
        local _, priority = header(blob)
        local ok, problem = pcall(put_behind, queue, priority, blob)
        if not ok then
          redis.call('HSET', key_delayed_messages(queue), id, blob)
          refusal = problem
        end
      end
    end
    if refusal then error(refusal) end
    redis.call('ZREM', key, unpack(ids))
    head = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  end
  if head[1] then
    local due = tonumber(head[2])
    if next_due == 0 or due < next_due then next_due = due end
  end
end

local out, lease, count, aside = {NOW, WALL, OFFSET, 0, 0, 0}, {}, 0, 0
local parked_now, bytes = 0, 0
local function take(queue, priority, blob, task)
  bytes = bytes + #blob
  local tag = number .. '.' .. count .. ':' .. priority .. ':' .. queue
  count = count + 1
  tally('received', task, queue)
  lease[#lease + 1] = tag; lease[#lease + 1] = blob
  out[#out + 1] = tag; out[#out + 1] = blob
end

-- Room for a task type: the free slots of its kind. A type that this node lacks is claimed too, to park it.
local room, kinds = nil, {}
for kind, free in string.gmatch(ARGV[7], '([^:,]+):(%d+)') do
  room = room or {}
  room[kind] = tonumber(free)
end
local function kind_of(task)
  if kinds[task] == nil then kinds[task] = redis.call('HGET', key_node(epoch), 't:' .. task) or '' end
  return kinds[task]
end
local function room_for(task) return room and room[kind_of(task)] or want - count end
local function fill(task)
  local kind = room and kind_of(task)
  if kind and room[kind] then room[kind] = room[kind] - 1 end
end

local own
local function own_types()
  if not own then
    own = {}
    for _, field in ipairs(redis.call('HKEYS', key_node(epoch))) do
      if string.sub(field, 1, 2) == 't:' then own[#own + 1] = string.sub(field, 3) end
    end
  end
  return own
end

-- Task types with parked messages: all, or only those of this node if there are very many.
local function parked_types(queue)
  local key, found = key_parked(queue), {}
  if redis.call('HLEN', key) <= TYPES_LISTED_MOST then return redis.call('HKEYS', key) end
  for first = 1, #own_types(), 1000 do
    local last = math.min(first + 999, #own)
    for i, since in ipairs(redis.call('HMGET', key, unpack(own, first, last))) do
      if since then found[#found + 1] = own[first + i - 1] end
    end
  end
  return found
end

-- A message parked before this node started could not run until then; one parked later, by a node that lacks its type,
-- could.
local opened
local function unparked(item)
  opened = opened or tonumber(redis.call('HGET', key_node(epoch), 'opened') or 0)
  local blob = string.sub(item, 9)
  return struct.unpack('>d', item) < opened and with_ready_at(blob, opened) or blob
end

-- What has been taken off a list and is not dealt with yet: after an error, no message may be lost.
local popped, popped_at, popped_from = {}, 1, {}
local left = {}
local function rest()
  local all = {}
  for i = 1, #lease, 2 do
    local queue, priority = parse_tag(lease[i])
    all[#all + 1] = {queue, priority, lease[i + 1]}
  end
  for _, each in ipairs(left) do all[#all + 1] = each end
  for i = popped_at, #popped do
    local queue, priority = unpack(popped_from)
    local blob = priority and popped[i] or string.sub(popped[i], 9)
    local _, own = header(blob)
    all[#all + 1] = {queue, priority or own, blob}
  end
  return all
end

-- Parked messages of types this node has. It notes the queues in which messages with limits wait.
local limited
local function take_parked()
  for _, queue in ipairs(queues) do
    local found = redis.call('EXISTS', key_parked(queue), key_limited(queue))
    if found > 0 and redis.call('EXISTS', key_limited(queue)) == 1 then
      limited = limited or {}
      limited[queue] = true
      found = found - 1
      lanes().promote(queue)
    end
    if found > 0 and count < want then
      for _, task in ipairs(parked_types(queue)) do
        if count < want and not passed_over[task] and redis.call('HEXISTS', key_node(epoch), 't:' .. task) == 1 then
          local key = key_parked_messages(queue, task)
          while count < want and bytes < BYTES_MOST do
            local most = math.min(want - count, room_for(task), POPPED_MOST)
            local items = most > 0 and redis.call('RPOP', key, most) or {}
            if #items == 0 then break end
            popped, popped_from = items, {queue}
            for i, item in ipairs(items) do
              popped_at = i
              local blob = unparked(item)
              local _, priority = header(blob)
              fill(task)
              take(queue, priority, blob, task)
            end
            popped, popped_at = {}, 1
          end
          if count < want and redis.call('EXISTS', key) == 1 then out[5] = 1 end
          forget_if_none_parked(queue, task)
        end
      end
    end
  end
end

-- ready messages, queue by queue, 9 before 0; now and then the other way round
local keys, queue_of, priority_of, levels = {}, {}, {}, {}
local first, last, step = 1, #queues, 1
if ARGV[6] == '1' then first, last, step = #queues, 1, -1 end
for q = first, last, step do
  levels[q] = {}
  local name = key_ready(queues[q], '') -- once for all priorities
  for n = 0, 9 do
    local priority = step == 1 and 9 - n or n
    keys[#keys + 1] = name .. priority
    queue_of[#keys], priority_of[#keys] = queues[q], priority
    levels[q][n + 1] = keys[#keys]
  end
end

-- Take up to MOST messages of a ready list, or all it may. Those without a free slot are left: they are put back at the
-- end. Answers whether there was any.
local function take_list(k, key, most)
  local taken = false
  while count < want and bytes < BYTES_MOST and #left < PASSED_OVER_MOST do
    local items = redis.pcall('RPOP', key, math.min(want - count, most or POPPED_MOST))
    if type(items) == 'table' and items.err then
      if not string.find(items.err, 'WRONGTYPE', 1, true) then
        if count == 0 and parked_now == 0 then error(items) end
        break
      end
      set_aside(key, queue_of[k]); aside = aside + 1
      break
    end
    if not items or #items == 0 then break end
    popped, popped_from = items, {queue_of[k], priority_of[k]}
    for i, blob in ipairs(items) do
      popped_at = i
      local version, _, _, _, _, task = header(blob)
      local has_limits = version > 1 and string.byte(blob, version == 3 and 1 or 9) == 3 and lanes().unwrapped(blob)
      if has_limits then
        -- A node older than limits has returned it.
        lanes().put(queue_of[k], priority_of[k], has_limits, true)
      elseif passed_over[task] and parked_now < 100 then
        park(queue_of[k], task, blob); parked_now = parked_now + 1
        wake(queue_of[k])
      elseif room_for(task) > 0 then
        fill(task)
        take(queue_of[k], priority_of[k], blob, task)
      else
        left[#left + 1] = {queue_of[k], priority_of[k], blob}
      end
    end
    popped, popped_at = {}, 1
    taken = true
    if most then break end
  end
  return taken
end

local revoke, turns = {}, nil
local function serve_limited(k, key)
  turns = turns or {
    epoch = epoch, looks = 0, taken = 0, dropped = 0,
    wants = function() return count < want and bytes < BYTES_MOST end,
    has_room = function(task) return not passed_over[task] and room_for(task) > 0 end,
    leave = function() out[5] = 1 end,
    revoke = function(id) revoke[#revoke + 1] = id end,
    take = function(queue, priority, blob, task, holds)
      fill(task)
      take(queue, priority, blob, task)
      local tag = (holds and '0' or '') .. lease[#lease - 1]
      out[#out - 1] = tag
      lease[#lease], lease[#lease - 1] = nil, nil -- it is leased before it leaves its lane
      return tag
    end,
  }
  turns.plain = function(most) return take_list(k, key, most) end
  lanes().serve(queue_of[k], priority_of[k], turns)
end

local function take_ready()
  if not limited and redis.call('EXISTS', unpack(keys)) == 0 then return end
  for k, key in ipairs(keys) do
    if count >= want or bytes >= BYTES_MOST or (turns and turns.is_over) then break end
    if limited and limited[queue_of[k]] and redis.call('EXISTS', key_fair(queue_of[k], priority_of[k])) == 1 then
      serve_limited(k, key)
    elseif redis.call('EXISTS', key) == 1 then
      take_list(k, key)
    end
    -- Put them back in their order, the first one in front.
    if #left > 0 then out[5] = 1 end
    for i = #left, 1, -1 do
      redis.call('RPUSH', key, left[i][3])
      left[i] = nil
    end
  end
end

local ok, problem = pcall(function()
  take_parked()
  take_ready()
  if #lease > 0 then redis.call('HSET', leased, unpack(lease)) end
end)
if not ok then
  -- A permission has been withdrawn: whichever it is, either the queue or the lease takes the messages.
  local all = rest()
  local back = pcall(function()
    for i = #all, 1, -1 do
      put_in_front(unpack(all[i]))
      all[i] = nil
    end
  end)
  for i, each in ipairs(back and {} or all) do
    redis.call('HSET', leased, number .. '.' .. count + i .. ':' .. each[2] .. ':' .. each[1], each[3])
  end
  return redis.error_reply(type(problem) == 'table' and problem.err or tostring(problem))
end
write_totals()
-- A node that parks a message must not take its wake-up from nodes that can run it.
if parked_now > 0 then out[5] = 1 end

for queue in pairs(limited or {}) do
  for priority = 0, 9 do
    for q, name in ipairs(queues) do
      if name == queue then levels[q][#levels[q] + 1] = key_fair(queue, priority) end
    end
  end
  local due = lanes().next_due(queue)
  if due > 0 and (next_due == 0 or due < next_due) then next_due = due end
  lanes().forget_if_empty(queue)
end

-- A satisfied node passes the token on if messages are left, or will be due before other nodes look on their own.
if count >= want or bytes >= BYTES_MOST or out[5] == 1 or (turns and turns.is_over) then
  local any_left = false
  for q, queue in ipairs(queues) do
    if redis.call('EXISTS', unpack(levels[q])) > 0 then wake(queue); any_left = true end
  end
  if not any_left and next_due > 0 and next_due <= NOW + 1100 then wake(queues[1]) end
end
out[4], out[6] = next_due, aside
if #BURIED > 0 or #revoke > 0 then out[6] = {aside, BURIED, revoke} end
return out
