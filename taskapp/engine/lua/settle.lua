#!lua flags=allow-oom
-- Settle claims, each with all effects of its run in one step: 3 epoch, 4 dead limit, 5 name of the node, then for each
-- claim
--   'T', tag                                                            a claim of this epoch, or
--   'U', name                                                           an unreported dead letter
-- and any number of steps, carried out in the given order (their names in Python: STEP_… in settlement.py):
--   'R', key, value, seconds to keep (0 forever)                        store a result
--   'O', chord, size (0 unknown), about, finish ('' none), seconds      begin a chord
--   'C', chord, slot, '1' success or '0', value, seconds                count a part of a chord
--   'F', chord                                                          a chord is finished: delete its parts
--   'M', queue, priority, due (ms, 0 now), id, message                  queue a follow-up
--   'E', channel, event                                                 publish the event of a follow-up
--   'D', reason, error                                                  bury the message
--   'B', reason, error                                                  bury the message, leave the letter unreported
--   'S', schedule, id, due (ms), state, duration (ms)                   end a tick, if the schedule has sent it
--   'K', task type, what, le of run ('' none), us, le of wait, us       count the run
--   'P', limit, key, ms                                                 pause a rate's key
--   'N', task type, period (ms)                                         count the run for its retry budget
--   'X', task type, kind of error ('' success), failures, within (ms, 0 in a row), open for (ms)   tell its circuit breaker
--   'H', most entries, record                                           add the record to the stream of finished tasks
-- Answers {stale tags}, {tag, number of arguments carried out, error, …} of claims that could not be settled and stay
-- leased, {id, task, reason, queue,
-- number of each letter that this node must report …}.
-- Keeps: a client that does not hold a claim changes nothing; the tag is deleted last, so a claim that is gone has been
-- settled completely.
local epoch, dead_limit, node = ARGV[3], tonumber(ARGV[4]), ARGV[5]
local leased, byte = key_leased(epoch), string.byte
local WIDTH = {R = 4, O = 6, C = 6, F = 2, M = 6, E = 3, D = 3, B = 3, S = 6, K = 7, P = 4, N = 3, X = 6, H = 3}

-- Carry out steps; DONE counts their arguments, so that nothing is done twice if the rest is repeated.
local DONE
local function finish(tag, i, last)
  local woken
  while i <= last do
    local step = ARGV[i]
    if step == 'R' then
      store_result(ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3]))
    elseif step == 'M' then
      local queue, due = ARGV[i + 1], tonumber(ARGV[i + 3])
      if byte(ARGV[i + 5], 1) == 3 then
        local _, _, _, _, own = header(redis.call('HGET', leased, tag) or '')
        lanes().follow(queue, tonumber(ARGV[i + 2]), ARGV[i + 4], ARGV[i + 5], due, own, node, dead_limit)
      elseif due > NOW then
        delay(queue, tonumber(ARGV[i + 2]), ARGV[i + 4], ARGV[i + 5], due)
      else
        put_behind(queue, tonumber(ARGV[i + 2]), ARGV[i + 5])
        if queue ~= woken then wake(queue); woken = queue end
      end
    elseif step == 'E' then
      redis.call('PUBLISH', ARGV[i + 1], ARGV[i + 2])
    elseif step == 'C' then
      count_part(ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], tonumber(ARGV[i + 5]), queue_of_tag(tag))
    elseif step == 'O' then
      begin_chord(ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], tonumber(ARGV[i + 5]))
    elseif step == 'F' then
      redis.call('UNLINK', key_chord(ARGV[i + 1]), key_chord_parts(ARGV[i + 1]))
    elseif step == 'K' then
      count_run(queue_of_tag(tag), ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], ARGV[i + 6])
    elseif step == 'S' then
      end_tick(ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5])
    elseif step == 'H' then
      add_finished(ARGV[i + 1], ARGV[i + 2])
    elseif step == 'N' then
      lanes().count_run_lately(ARGV[i + 1], tonumber(ARGV[i + 2]))
    elseif step == 'X' then
      lanes().ran(ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3]), tonumber(ARGV[i + 4]), tonumber(ARGV[i + 5]),
        epoch .. BAR .. tag)
    elseif step == 'P' then
      lanes().pause(ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3]), true)
    elseif step == 'D' or step == 'B' then
      local queue, priority = parse_tag(tag)
      local bury = step == 'B' and bury_unreported or bury
      bury(queue, priority, redis.call('HGET', leased, tag), ARGV[i + 1], node, ARGV[i + 2], dead_limit)
    end
    i = i + WIDTH[step]
    DONE = DONE + WIDTH[step]
  end
end

local function holds(kind, tag)
  if kind == 'U' then return redis.call('ZSCORE', key_unreported(), tag) end
  return redis.call('HEXISTS', leased, tag) == 1
end

local function let_go(kind, tag)
  if kind == 'U' then
    redis.call('ZREM', key_unreported(), tag)
  else
    if byte(tag, 1) == 48 then lanes().release(epoch, tag, redis.call('HGET', leased, tag)) end
    redis.call('HDEL', leased, tag)
  end
end

local stale, failed = {}, {}
local i = 6
while i <= #ARGV do
  local kind, tag, first = ARGV[i], ARGV[i + 1], i + 2
  i = first
  while ARGV[i] and ARGV[i] ~= 'T' and ARGV[i] ~= 'U' do i = i + WIDTH[ARGV[i]] end
  DONE = 0
  local ok, problem = pcall(holds, kind, tag)
  if ok and not problem then
    stale[#stale + 1] = tag
  else
    if ok then ok, problem = pcall(finish, tag, first, i - 1) end
    if ok then ok, problem = pcall(let_go, kind, tag) end
    if not ok then
      failed[#failed + 1] = tag
      failed[#failed + 1] = tostring(DONE)
      failed[#failed + 1] = type(problem) == 'table' and problem.err or tostring(problem)
    end
  end
end
write_totals()
return {stale, failed, BURIED}
