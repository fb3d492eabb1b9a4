-- Circuit breakers of task types. A type with one has, in its messages, a gate of a rate without cost, which is paused while
-- the circuit is open, and one of slots, of which there is one while it is open or half-open: a probe. Part of a function,
-- see lanes.lua.

local FORGOTTEN_MS = 86400000 -- after which failures in a row count no more

local function circuit_name(task) return CIRCUIT .. task end

local function open_circuit(task, kind, open_for)
  local key = key_circuit(task)
  redis.call('HDEL', key, 'last', 'row') -- all there is before it opens: the key expires no more
  redis.call('HSET', key, 'until', NOW + open_for, 'kind', kind)
  redis.call('HINCRBY', key, 'times', 1)
  redis.call('ZADD', key_circuits(), 'NX', WALL, task)
  NUMBERS[circuit_name(task)] = nil
  M.pause(circuit_name(task), '', open_for, false)
end

-- Answers 1, or 0 if it was closed.
function M.close_circuit(task)
  if redis.call('HEXISTS', key_circuit(task), 'until') == 0 then return 0 end
  redis.call('UNLINK', key_circuit(task))
  redis.call('ZREM', key_circuits(), task)
  NUMBERS[circuit_name(task)] = nil
  M.pause(circuit_name(task), '', 0, false)
  let_in(gate_of('S', circuit_name(task), ''))
  return 1
end

-- Number of failures of this kind: in a row, or in the last WITHIN ms.
local function failures_of(task, kind, within, claim, last, row)
  if within == 0 then
    local number = last == kind and (tonumber(row) or 0) + 1 or 1
    redis.call('HSET', key_circuit(task), 'last', kind, 'row', number)
    redis.call('PEXPIRE', key_circuit(task), FORGOTTEN_MS)
    return number
  end
  local key = key_circuit_failures(task, kind)
  redis.call('ZADD', key, NOW, claim)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', NOW - within)
  redis.call('PEXPIRE', key, within)
  return redis.call('ZCARD', key)
end

-- A run has ended: KIND of its error, '' for a success. Runs that end while the circuit is open have begun before.
function M.ran(task, kind, failures, within, open_for, claim)
  local has = redis.call('HMGET', key_circuit(task), 'until', 'last', 'row')
  local opens = tonumber(has[1])
  if opens and opens > NOW then return end
  if kind == '' then
    if opens then M.close_circuit(task) elseif has[2] then redis.call('UNLINK', key_circuit(task)) end
  elseif opens then
    open_circuit(task, kind, open_for)
  elseif failures_of(task, kind, within, claim, has[2], has[3]) >= failures then
    redis.call('UNLINK', key_circuit_failures(task, kind))
    open_circuit(task, kind, open_for)
  end
end

