#!lua flags=allow-oom
-- Move claimed messages to the dead letters: 3 epoch, 4 dead limit, 5 name of the node, then per message tag, reason,
-- error, result key ('' for none), result, seconds to keep it. Answers the stale tags.
local leased = key_leased(ARGV[3])
local stale = {}
for i = 6, #ARGV, 6 do
  local tag = ARGV[i]
  local blob = redis.call('HGET', leased, tag)
  if not blob then
    stale[#stale + 1] = tag
  else
    local queue, priority = parse_tag(tag)
    if ARGV[i + 3] ~= '' then store_result(ARGV[i + 3], ARGV[i + 4], tonumber(ARGV[i + 5])) end
    bury(queue, priority, blob, ARGV[i + 1], ARGV[5], ARGV[i + 2], tonumber(ARGV[4]))
    redis.call('HDEL', leased, tag)
  end
end
return stale
