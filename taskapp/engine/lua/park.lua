#!lua flags=allow-oom
-- Park claimed messages until a node has their task type: 3 epoch, then tag, task type … Answers the stale tags.
local leased = key_leased(ARGV[3])
local stale = {}
for i = 4, #ARGV, 2 do
  local tag, task = ARGV[i], ARGV[i + 1]
  local blob = redis.call('HGET', leased, tag)
  if not blob then
    stale[#stale + 1] = tag
  else
    local queue, priority = parse_tag(tag)
    local version, _, deliveries, crashes = header(blob)
    -- A message of another program gets a header, which keeps its priority.
    local parked = version == 0 and with_counts(blob, 0, priority, deliveries, crashes) or blob
    move_claimed(ARGV[3], tag, blob, function()
      if version == 3 then
        -- Its lane is passed over by this node from now on; others have its type.
        lanes().put(queue, priority, blob, true)
      else
        park(queue, task, parked)
      end
    end)
    wake(queue)
  end
end
return stale
