#!lua flags=allow-oom
-- After a broken connection: make claims up to number ARGV[4] of epoch ARGV[3] that are still in transit do nothing.
-- ARGV[5] '0', or the cursor to continue from: tags come in pages.
-- Answers 1 if the lease lives, then the next cursor ('0': done), then tags it holds; only 0 if the lease has ended.
if not redis.call('ZSCORE', key_leases(), ARGV[3]) then return {0} end
local leased = key_leased(ARGV[3])
if ARGV[5] == '0' then
  local lacking = lacks_permission()
  if lacking then return redis.error_reply(lacking) end
  redis.call('HSET', key_node(ARGV[3]), 'fence', ARGV[4])
  if redis.call('HLEN', leased) <= 1000 then return {1, '0', unpack(redis.call('HKEYS', leased))} end
end
local page = redis.call('HSCAN', leased, ARGV[5], 'COUNT', 500)
local out = {1, page[1]}
for i = 1, #page[2], 2 do out[#out + 1] = page[2][i] end
return out
