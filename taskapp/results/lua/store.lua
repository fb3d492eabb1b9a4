#!lua flags=allow-oom
-- Store one result and publish it, unless the writer is stale.
-- 2 key of the result, also the channel it is published on, 3 the result: JSON that begins with "status", optionally
-- followed by "run", 4 seconds to keep it (0 forever), 5 '1' if it is final (SUCCESS, FAILURE, REVOKED),
-- 6 number of the run that writes, increasing with every run of the task (-1 unknown), 7 hash of the writer's leases on
-- this server ('' none), 8 the field in it that exists while the claim holds.
-- Answers 1 stored; 0 kept a stored SUCCESS or final result of the same run; -1 stale, the claim is gone;
-- -2 stale, a later run has written. Only 1 changes anything.
-- Keeps: a SUCCESS is never overwritten; a writer that has lost its claim writes nothing; an unfinished state never
-- replaces the result of a later run.
local key, value, keep_seconds, is_final = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5] == '1'
local run, leases, tag = tonumber(ARGV[6]), ARGV[7], ARGV[8]

if leases ~= '' and redis.call('HEXISTS', leases, tag) == 0 then return -1 end

-- The head is enough: a result may be many megabytes.
local head = redis.call('GETRANGE', key, 0, 159)
local state = string.match(head, '^{"status": ?"([^"]*)"')
if state == 'SUCCESS' then return 0 end
if state and run >= 0 then
  local written_run = tonumber(string.match(head, '^{"status": ?"[^"]*", ?"run": ?(%d+)') or 0)
  local has_ended = state == 'FAILURE' or state == 'REVOKED'
  -- A final result under a claim that holds always counts, because a replayed message numbers its runs from 0 again.
  -- Without a claim to check, it must not replace the state of a later run that is still going on.
  if written_run > run and not (is_final and (leases ~= '' or has_ended)) then return -2 end
  if written_run == run and has_ended and not is_final then return 0 end
end

if keep_seconds > 0 then
  redis.call('SET', key, value, 'EX', keep_seconds)
else
  redis.call('SET', key, value)
end
redis.call('PUBLISH', key, value)
return 1
