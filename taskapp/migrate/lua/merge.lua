-- Move waiting messages of one ready list behind those of another.
--
-- KEYS[1]  list   source; the next message is at the right end
-- KEYS[2]  list   destination; messages are added at the left end
-- ARGV     pairs  an entry in KEYS[1], and the entry to add to KEYS[2]; in the order they are taken
--
-- Returns the number moved. An entry that a worker has taken by now is skipped, as is one more
-- than 10,000 entries deep; if KEYS[2] is not a list, nothing moves.
--
-- Keeps: an entry is in one of the two lists, never in neither, even if the server is full.

local kind = redis.call('TYPE', KEYS[2]).ok
if kind ~= 'list' and kind ~= 'none' then
    return 0
end
-- Changes nothing, but after a command that may free memory a full server also accepts the pushes.
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
