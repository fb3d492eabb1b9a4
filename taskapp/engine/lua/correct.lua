#!lua flags=allow-oom
-- The server's clock was set forward by more than any answer could take: keep the engine's
-- time as it was. 3 the offset that the caller saw, 4 the new one, 5 lease ms.
if OFFSET == tonumber(ARGV[3]) then
  redis.call('HSET', key_clock(), 'offset', ARGV[4], 'reap_after', WALL + tonumber(ARGV[4]) + tonumber(ARGV[5]),
    'tick', WALL + tonumber(ARGV[4]))
  return 1
end
return 0
