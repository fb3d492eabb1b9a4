-- Move messages that workers on kombu's own Redis transport held back to where they are taken next.
--
-- KEYS[1]  hash     kombu's `unacked`: delivery tag -> JSON of [message, exchange, routing key]
-- KEYS[2]  zset     kombu's `unacked_index`: delivery tag -> when it was delivered, Unix seconds
-- KEYS[3…] lists    ready lists; what is taken next lies at the right end
-- ARGV     triples  tag, message as kombu JSON, indexes into KEYS of its lists, separated by spaces
--
-- Returns one word a triple: `adopted`, `gone` (nobody holds the tag any more) or `wrong type`
-- (a destination is no list; the message stays where it is).
--
-- Keeps: a message is in `unacked` or in its ready lists, never in neither, also where the server
-- is full or refuses a command half way.

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
