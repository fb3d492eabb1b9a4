-- Return messages held by workers on kombu's own Redis transport to the front of their ready lists.
--
-- KEYS[1]  hash     kombu's `unacked`: delivery tag -> JSON of [message, exchange, routing key]
-- KEYS[2]  zset     kombu's `unacked_index`: delivery tag -> when it was delivered, Unix seconds
-- KEYS[3…] lists    ready lists; the next message is at the right end
-- ARGV     triples  tag, message as kombu JSON, indexes into KEYS of its lists, separated by spaces
--
-- Returns one word per triple: `adopted`, `gone` (the tag is no longer held) or `wrong type`
-- (a destination is not a list; the message stays where it is).
--
-- Keeps: a message is in `unacked` or in its ready lists, never in neither, even if the server
-- is full or refuses a command halfway.

local outcomes = {}

local function is_list(key)
    local kind = redis.call('TYPE', key).ok
    return kind == 'list' or kind == 'none'
end

local function adopt(tag, message, destinations)
    -- First a command that frees memory: a full server then accepts the pushes as well.
    redis.call('ZREM', KEYS[2], tag)
    if redis.call('HEXISTS', KEYS[1], tag) == 0 then
        return 'gone'
    end
    for index in string.gmatch(destinations, '%d+') do
        redis.call('RPUSH', KEYS[tonumber(index)], message)
    end
    redis.call('HDEL', KEYS[1], tag)
    return 'adopted'
end

for first = 1, #ARGV, 3 do
    local fits = true
    for index in string.gmatch(ARGV[first + 2], '%d+') do
        fits = fits and is_list(KEYS[tonumber(index)])
    end
    outcomes[#outcomes + 1] = fits and adopt(ARGV[first], ARGV[first + 1], ARGV[first + 2]) or 'wrong type'
end
return outcomes
