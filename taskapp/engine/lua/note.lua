-- Write the notes of runs: 3 writer, 4 number of this batch, 5 seconds to keep them (0 forever),
-- 6 maximum number of log lines per task, then any number of
--   'P', id, progress           replaces the previous progress
--   'R', id, reason for a retry appended
--   'L', id, log line           appended
--   'K', queue, run             counted, like the step 'K' of settle
--   'H', most, record           added to the stream of finished tasks, like the step 'H' of settle
--   'T', task type, ''          a type of this node, which gets totals of its own
-- Answers 1, or 0 for a batch that was written before.
-- Keeps: a batch is written once; the notes per task, and the number of tasks with log lines, are bounded. A full Redis
-- refuses the whole batch.
local RETRIES_MOST, LOGS_MOST, LOG_BYTES_MOST = 100, 10000, 131072
local FORGOTTEN_MOST = 500 -- names of expired logs to forget per call
local seconds, lines_most = tonumber(ARGV[5]), tonumber(ARGV[6])
if redis.call('GET', key_note_writer(ARGV[3])) == ARGV[4] then return 0 end
redis.call('SET', key_note_writer(ARGV[3]), ARGV[4], 'EX', 3600)

local logged = {}
for i = 7, #ARGV, 3 do
  local step, id, text = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if step == 'P' then
    redis.call('HSET', key_task(id), 'progress', text)
    expire(key_task(id), seconds)
  elseif step == 'R' then
    redis.call('RPUSH', key_task_retries(id), text)
    redis.call('LTRIM', key_task_retries(id), -RETRIES_MOST, -1)
    expire(key_task_retries(id), seconds)
  elseif step == 'L' then
    redis.call('XADD', key_task_log(id), 'MAXLEN', lines_most, '*', 'line', text)
    logged[id] = true
  elseif step == 'K' then
    local parts = {}
    for part in string.gmatch(text .. BAR, '([^' .. BAR .. ']*)' .. BAR) do parts[#parts + 1] = part end
    count_run(id, unpack(parts))
  elseif step == 'H' then
    add_finished(id, text)
  elseif step == 'T' then
    announce(id)
  end
end
if ARGV[7] == 'T' then forget_unannounced() end

for id in pairs(logged) do
  if redis.call('MEMORY', 'USAGE', key_task_log(id)) > LOG_BYTES_MOST then
    redis.call('XTRIM', key_task_log(id), 'MAXLEN', floor(redis.call('XLEN', key_task_log(id)) / 2))
  end
  expire(key_task_log(id), seconds)
  redis.call('ZADD', key_task_logs(), WALL, id)
end
if next(logged) then
  if seconds > 0 then
    local gone = redis.call('ZRANGEBYSCORE', key_task_logs(), '-inf', WALL - seconds * 1000, 'LIMIT', 0, FORGOTTEN_MOST)
    if #gone > 0 then redis.call('ZREM', key_task_logs(), unpack(gone)) end
  end
  local surplus = redis.call('ZCARD', key_task_logs()) - LOGS_MOST
  if surplus > 0 then
    local oldest = redis.call('ZPOPMIN', key_task_logs(), surplus)
    for i = 1, #oldest, 2 do redis.call('DEL', key_task_log(oldest[i])) end
  end
end
write_totals()
return 1
