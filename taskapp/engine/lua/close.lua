#!lua flags=allow-oom
-- End epoch ARGV[3]: return the messages it still holds, about 100 per call, and delete its lease.
-- ARGV[4…]: queues whose token this node may have taken. Answers the number of messages left.
local leased = key_leased(ARGV[3])
for _, item in ipairs(held_by(ARGV[3], GIVEN_BACK_MOST)) do
  move_claimed(ARGV[3], item.tag, item.blob, function()
    give_back(item.queue, item.priority, item.blob, 'unstarted')
  end)
end
local left = redis.call('HLEN', leased)
if left == 0 then
  redis.call('ZREM', key_leases(), ARGV[3])
  redis.call('DEL', key_node(ARGV[3]))
  redis.call('HDEL', key_nodes(), ARGV[3])
end
for i = 4, #ARGV do wake(ARGV[i]) end
return left
