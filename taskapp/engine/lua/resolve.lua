-- Answers 1 if push number ARGV[4] of producer ARGV[3] was carried out; otherwise makes sure that it never will be.
local key = key_producer(ARGV[3])
local last = redis.call('GET', key)
if last and last ~= 'closed' and tonumber(last) >= tonumber(ARGV[4]) then return 1 end
redis.call('SET', key, 'closed', 'EX', 3600)
return 0
