#!lua flags=allow-oom
-- Lead, or go on leading: 3 who asks, 4 its token ('' none), 5 lease (ms).
-- Answers {token it leads with or '', ms until the leader's lease ends, wall clock (ms)}.
-- Keeps: a token is given once; whoever has another than the hash does not lead.
local beat = redis.call('HMGET', key_beat(), 'leader', 'token', 'until')
local left = (tonumber(beat[3] or 0) or 0) - NOW
local leads = ARGV[4] ~= '' and beat[2] == ARGV[4]
if not leads and left > 0 and left <= tonumber(ARGV[5]) then return {'', left, WALL} end
-- One that still has the token has missed nothing: nobody led since.
local token = ARGV[4]
if not leads then
  -- In an emptied Redis no token is given again either.
  redis.call('HSETNX', key_beat(), 'token', WALL)
  token = tostring(redis.call('HINCRBY', key_beat(), 'token', 1))
end
redis.call('HSET', key_beat(), 'leader', ARGV[3], 'until', NOW + ARGV[5])
return {token, tonumber(ARGV[5]), WALL}
