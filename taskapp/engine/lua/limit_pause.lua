-- Let no task of a rate's key start for a while, on any node: 3 name of the limit, 4 key, 5 duration (ms; 0 ends a pause).
local name, key, pause = ARGV[3], ARGV[4], NOW + tonumber(ARGV[5])
local gate = 'R' .. BAR .. name .. BAR .. key
local known = redis.call('GET', key_rate(name, key))
local paid, _, each = string.match(known or '', '^([^:]*):([^:]*):(.*)$')
paid = tonumber(paid) or NOW
local ends = math.max(paid, pause)
if ends > NOW then
  local text = string.format('%.17g:%.0f:%s', paid, pause, each or '')
  redis.call('SET', key_rate(name, key), text, 'PX', string.format('%.0f', math.ceil(ends - NOW)))
else
  redis.call('UNLINK', key_rate(name, key))
end
if redis.call('EXISTS', key_gate_waiters(gate)) == 1 then
  redis.call('ZADD', key_gates(), math.max(pause, NOW), gate)
  -- Those that wait for the gate look again: it may open earlier than they know.
  local first = redis.call('ZRANGE', key_gate_waiters(gate), 0, 0)[1]
  wake(string.match(first, '^(.-)' .. BAR))
end
return 1
