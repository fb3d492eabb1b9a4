#!lua flags=allow-oom
-- Acquire or renew leadership: 3 name of the beat, 4 its token ('' none), 5 lease (ms).
-- Answers {its token as leader or '', ms until the leader's lease ends, wall clock (ms)}.
-- Keeps: each token is given once; only the beat with the token in the hash leads.
local beat = redis.call('HMGET', key_beat(), 'leader', 'token', 'until')
local left = (tonumber(beat[3] or 0) or 0) - NOW
local leads = ARGV[4] ~= '' and beat[2] == ARGV[4]
if not leads and left > 0 and left <= tonumber(ARGV[5]) then return {'', left, WALL} end
-- A beat whose token is still current keeps it, even if its lease expired: no other has led since.
local token = ARGV[4]
if not leads then
  -- Tokens start at the current time, so that none is given again after Redis was emptied either.
  redis.call('HSETNX', key_beat(), 'token', WALL)
  token = tostring(redis.call('HINCRBY', key_beat(), 'token', 1))
end
redis.call('HSET', key_beat(), 'leader', ARGV[3], 'until', NOW + ARGV[5])
return {token, tonumber(ARGV[5]), WALL}
