#!lua flags=allow-oom
-- Find a message with limits that waits: 3 queue, 4 id. Answers {place ('' none), message, when it is due or its gate opens
-- (ms; '' unknown), gate}.
local queue, field = ARGV[3], ARGV[4]
local blob = redis.call('HGET', key_limited_messages(queue), field)
if not blob then return {'', '', '', ''} end
local due = redis.call('ZSCORE', key_lane_delayed(queue), field)
if due then return {'delayed', blob, due, ''} end
local gate = lanes().gate_of_message(queue, blob)
if not gate then return {'ready', blob, '', ''} end
return {'blocked', blob, redis.call('ZSCORE', key_gates(), gate) or '', gate}
