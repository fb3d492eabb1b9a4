#!lua flags=allow-oom
-- Return claimed messages: 3 epoch, 4 kind (see give_back), 5 crash limit, 6 dead limit, 7 due (ms, 0 now),
-- 8 name of the node, then tags. Answers the stale tags, and {id, task, reason, queue, number …} of buried messages.
local leased = key_leased(ARGV[3])
local stale = {}
-- The message that was claimed first is returned last, so that it ends up in front again.
for i = #ARGV, 9, -1 do
  local tag = ARGV[i]
  local blob = redis.call('HGET', leased, tag)
  if not blob then
    stale[#stale + 1] = tag
  else
    local queue, priority = parse_tag(tag)
    move_claimed(ARGV[3], tag, blob, function()
      give_back(queue, priority, blob, ARGV[4], ARGV[8], tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]),
        ARGV[3] .. tag)
    end)
  end
end
write_totals()
return {stale, BURIED}
