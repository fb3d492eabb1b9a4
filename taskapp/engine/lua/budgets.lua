-- Retry budgets: how many runs ('n') and retries ('r') of a task type there were lately. A period is counted in slices, so
-- that the hash of a type stays small. Part of a function, see lanes.lua.

local SLICES = 12

-- The numbers of the last period. A slice that has begun before it counts whole: never too few.
local function lately(task, period)
  local key, slice, seen = key_retry_budget(task), floor(NOW * SLICES / period), {n = 0, r = 0}
  local flat = redis.call('HGETALL', key)
  for i = 1, #flat, 2 do
    local what, at = string.match(flat[i], '^([nr])(%d+)$')
    if what and tonumber(at) >= slice - SLICES and tonumber(at) <= slice then
      seen[what] = seen[what] + (tonumber(flat[i + 1]) or 0)
    else
      redis.call('HDEL', key, flat[i])
    end
  end
  return seen
end

local function count_lately(task, period, what)
  local key = key_retry_budget(task)
  local field = string.format('%s%.0f', what, floor(NOW * SLICES / period))
  if redis.call('HINCRBY', key, field, 1) > 1 then return end
  lately(task, period)
  redis.call('PEXPIRE', key, 2 * period)
end

function M.count_run_lately(task, period) count_lately(task, period, 'n') end

-- Take one retry from the budget of a type: MOST in a period, or, if that is 0, a SHARE of its runs, but at least LEAST.
function M.take_retry(task, period, most, share, least)
  local seen = lately(task, period)
  if most == 0 then most = math.max(least, share * seen.n) end
  if seen.r + 1 > most then return 0 end
  count_lately(task, period, 'r')
  return 1
end

