-- Move waiting messages of one ready list behind those of another.
--
-- KEYS[1]  list   ready list they leave; what is taken next lies at the right end
-- KEYS[2]  list   ready list they go to the left end of
-- ARGV     pairs  an entry as it lies in KEYS[1], and what it is to be in KEYS[2]; what is taken next first
--
-- Returns how many were moved. An entry that is no longer there was taken meanwhile and is passed
-- over, as is one that lies more than 10,000 deep; when KEYS[2] is no list, nothing moves.
--
-- Keeps: an entry is in one of the two lists, never in neither, also where the server is full.

local kind = redis.call('TYPE', KEYS[2]).ok
if kind ~= 'list' and kind ~= 'none' then
    return 0
end
-- Changes nothing; after a command that may free memory a full server accepts the pushes as well.
redis.call('LTRIM', KEYS[1], 0, -1)
local moved = 0
for first = 1, #ARGV, 2 do
    if redis.call('LPOS', KEYS[1], ARGV[first], 'RANK', -1, 'MAXLEN', 10000) then
        redis.call('LPUSH', KEYS[2], ARGV[first + 1])
        redis.call('LREM', KEYS[1], -1, ARGV[first])
        moved = moved + 1
    end
end
return moved
