#!lua flags=allow-oom
-- Adopt messages from kombu's lists, where clients of stock Celery and older versions of taskapp put them: move them behind
-- the ready messages of the same queue and priority. 3 maximum number, 4 '1' to start at the bottom, as a claim does, then
-- queues in the order they are served. Answers 1 if there may be more, else 0.
-- Keeps: the order of each list. What is not a list, or may not be read, stays as it is.
local BYTES_MOST = 524288 -- ends a call, whatever its number
local most, is_from_below, bytes = tonumber(ARGV[3]), ARGV[4] == '1', 0
local function is_over() return most <= 0 or bytes >= BYTES_MOST end

local function adopt(queue)
  local before = most
  for n = 0, 9 do
    local priority = is_from_below and n or 9 - n
    while not is_over() do
      local blob = redis.pcall('LMOVE', kombu_key(queue, priority), key_ready(queue, priority), 'RIGHT', 'LEFT')
      if type(blob) ~= 'string' then break end
      most, bytes = most - 1, bytes + #blob
    end
  end
  if most < before then wake(queue) end
end

for n = 5, #ARGV do
  local queue, keys = is_from_below and ARGV[#ARGV + 5 - n] or ARGV[n], {}
  for priority = 0, 9 do keys[#keys + 1] = kombu_key(queue, priority) end
  local waiting = redis.pcall('EXISTS', unpack(keys))
  if type(waiting) == 'number' and waiting > 0 then adopt(queue) end
  if is_over() then break end
end
return is_over() and 1 or 0
