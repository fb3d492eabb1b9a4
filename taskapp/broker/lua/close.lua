#!lua flags=allow-oom
-- End epoch ARGV[3]: give back what it still holds, up to 1,000 a call, and let its lease go.
-- Then ARGV[4…]: queues whose token this node may have taken. Answers how many are left.
local leased = key_leased(ARGV[3])
local fields = redis.call('HSCAN', leased, 0, 'COUNT', 1000)[2]
local items = {}
for i = 1, #fields, 2 do
  local queue, priority, claim, index = parse_tag(fields[i])
  items[#items + 1] = {fields[i], fields[i + 1], queue, priority, claim, index}
end
table.sort(items, function(a, b)
  if a[5] ~= b[5] then return a[5] > b[5] end
  return a[6] > b[6]
end)
for _, item in ipairs(items) do
  give_back(item[3], item[4], item[2], 'unstarted')
  redis.call('HDEL', leased, item[1])
end
local left = redis.call('HLEN', leased)
if left == 0 then
  redis.call('ZREM', key_leases(), ARGV[3])
  redis.call('DEL', key_node(ARGV[3]))
end
for i = 4, #ARGV do wake(ARGV[i]) end
return left
