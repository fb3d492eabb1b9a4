#!lua flags=allow-oom
-- After a broken connection: claims up to number ARGV[4] of epoch ARGV[3] that are still on their way
-- shall do nothing. Answers 1 if the lease lives, then the tags it holds.
if not redis.call('ZSCORE', key_leases(), ARGV[3]) then return {0} end
redis.call('HSET', key_node(ARGV[3]), 'fence', ARGV[4])
local out = {1}
for _, tag in ipairs(redis.call('HKEYS', key_leased(ARGV[3]))) do out[#out + 1] = tag end
return out
