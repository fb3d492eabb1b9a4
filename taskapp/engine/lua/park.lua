#!lua flags=allow-oom
-- Set claimed messages aside until a node that has their type is there: 3 epoch, then tag, task type …
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
    -- A message from elsewhere gets a header, which keeps its priority.
    if version == 0 then blob = with_counts(blob, 0, priority, deliveries, crashes) end
    park(queue, task, blob)
    redis.call('HDEL', leased, tag)
    wake(queue)
  end
end
return stale
