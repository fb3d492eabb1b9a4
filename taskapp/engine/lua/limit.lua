#!lua flags=allow-oom
-- Write numbers of limits: 3 'declared' (by a node that starts) or 'set' (by somebody, who wins), then for each its name
-- and JSON ('' deletes them).
local what = ARGV[3]
for i = 4, #ARGV, 2 do
  local field = what .. ':' .. ARGV[i]
  if ARGV[i + 1] == '' then
    redis.call('HDEL', key_limits(), field)
  else
    redis.call('HSET', key_limits(), field, ARGV[i + 1])
  end
end
return 1
