#!lua flags=allow-oom
-- Finish claims: 3 epoch, then per message tag, result key ('' for none), result, seconds to keep it (0 for ever).
-- Answers the stale tags. The result stands before the tag goes, and neither happens once the lease is lost.
local leased = key_leased(ARGV[3])
local stale = {}
for i = 4, #ARGV, 4 do
  local tag, key = ARGV[i], ARGV[i + 1]
  if redis.call('HEXISTS', leased, tag) == 0 then
    stale[#stale + 1] = tag
  else
    if key ~= '' then store_result(key, ARGV[i + 2], tonumber(ARGV[i + 3])) end
    redis.call('HDEL', leased, tag)
  end
end
return stale
