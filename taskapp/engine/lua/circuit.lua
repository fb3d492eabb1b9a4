-- Circuits that are open or half-open: 3 '' to list up to 1,000 of them, or the task type whose circuit to close.
-- Answers {task type, since (wall clock, ms), ms until a probe may run (0: half-open), kind of error, times it has opened,
-- …}; or 1, or 0 if the circuit was closed.
if ARGV[3] ~= '' then return lanes().close_circuit(ARGV[3]) end
local found = {}
local listed = redis.call('ZRANGE', key_circuits(), 0, 999, 'WITHSCORES')
for i = 1, #listed, 2 do
  local has = redis.call('HMGET', key_circuit(listed[i]), 'until', 'kind', 'times')
  local left = math.max(0, (tonumber(has[1]) or 0) - NOW)
  for _, part in ipairs({listed[i], listed[i + 1], string.format('%.0f', left), has[2] or '', has[3] or '0'}) do
    found[#found + 1] = part
  end
end
return found
