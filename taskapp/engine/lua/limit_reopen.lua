#!lua flags=allow-oom
-- The numbers of limits have changed: let lanes that wait look again. 3 '0', or the cursor to continue from; gates come in
-- pages. Answers the next cursor ('0': done).
local page = redis.call('ZSCAN', key_gates(), ARGV[3], 'COUNT', 200)
for i = 1, #page[2], 2 do
  redis.call('ZADD', key_gates(), 'XX', NOW, page[2][i])
  local first = redis.call('ZRANGE', key_gate_waiters(page[2][i]), 0, 0)[1]
  if first then wake(string.match(first, '^(.-)' .. BAR)) end
end
if ARGV[3] == '0' then
  for _, gate in ipairs(redis.call('ZRANGE', key_slot_checks(), 0, 199)) do redis.call('ZADD', key_slot_checks(), NOW, gate) end
  lanes().check_slots(1000)
end
return page[1]
