#!lua flags=allow-oom
-- Delete the ready, delayed, blocked and parked messages of queue ARGV[3], and those of stock clients; leased ones stay.
-- ARGV[4] '0', or the cursor to continue from: each call deletes some messages with limits ('L' and a cursor), or some
-- parked task types.
-- Answers {number deleted, cursor to continue from ('0': done)}.
-- Keeps: large keys disappear at once; Redis frees their memory in the background.
local TYPES_AT_ONCE, LIMITED_AT_ONCE = 100, 50
local queue, at, gone = ARGV[3], ARGV[4], 0
if at == '0' then
  for priority = 0, 9 do
    local key, others = key_ready(queue, priority), kombu_key(queue, priority)
    local length = redis.pcall('LLEN', key)
    if type(length) == 'number' then gone = gone + length end
    redis.call('UNLINK', key)
    length = redis.pcall('LLEN', others)
    if type(length) == 'number' then
      gone = gone + length
      redis.call('UNLINK', others)
    end
  end
  gone = gone + redis.call('ZCARD', key_delayed(queue))
  redis.call('UNLINK', key_delayed(queue), key_delayed_messages(queue), key_wake(queue))
end
if (at == '0' and redis.call('EXISTS', key_limited_messages(queue)) == 1) or string.sub(at, 1, 1) == 'L' then
  local cursor = at == '0' and '0' or string.sub(at, 2)
  local some = redis.call('HSCAN', key_limited_messages(queue), cursor, 'COUNT', LIMITED_AT_ONCE)
  for i = 1, #some[2], 2 do
    if lanes().delete(queue, some[2][i]) then gone = gone + 1 end
  end
  -- A small hash comes in one page, whatever its number.
  if some[1] ~= '0' then return {gone, 'L' .. some[1]} end
  at = '0'
  lanes().forget_if_empty(queue)
end
local page = redis.call('HSCAN', key_parked(queue), at, 'COUNT', TYPES_AT_ONCE)
local types, lists = {}, {}
for i = 1, #page[2], 2 do
  local list = key_parked_messages(queue, page[2][i])
  gone = gone + redis.call('LLEN', list)
  types[#types + 1], lists[#lists + 1] = page[2][i], list
end
if #types > 0 then
  redis.call('UNLINK', unpack(lists))
  redis.call('HDEL', key_parked(queue), unpack(types))
end
return {gone, page[1]}
