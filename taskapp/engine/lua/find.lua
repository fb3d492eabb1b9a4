#!lua flags=allow-oom
-- Search a part of a list or a hash for the message of one task; changes nothing.
-- 3 key, 4 kind of key: 'list', messages; 'parked', the same with 8 bytes of time before each; 'hash', messages by
-- tag; 'claims', delayed messages stored under a tag, for lack of an id, in the hash 9; 'letters', summaries of
-- dead letters by number, their messages in the hash 9; 'numbers', the same, by number from 5 on; 'types', task types
-- with parked messages in queue 9. 5 cursor ('0' at first; in a list a position from the left, or below 0 from
-- the right), 6 id, 7 and 8 the id as other programs write it in JSON, 10 maximum number of entries to search.
-- Answers {next cursor ('' at the end), number searched, their bytes, task types skipped because they have too many
-- parked messages}, followed, if the message was found, by its field or position and its bytes (for a letter: its
-- summary).
-- Keeps: a list is searched from the left, where new messages are added: these push the rest to the right, claimed ones
-- leave on the right, and so no message is missed.
local key, kind, at, id, count = ARGV[3], ARGV[4], ARGV[5], ARGV[6], tonumber(ARGV[10])
local FEW = 10 -- parked messages of one type up to which they are searched here
local byte, sub, find = string.byte, string.sub, string.find
local in_letter, of_others = '"id":' .. cjson.encode(id), '"id":""'
local skipped = (kind == 'parked' or kind == 'types') and 8 or 0 -- bytes before each message
-- Compare three bytes of each message first: extracting its id would create a string for each.
local length, second, last = #id, byte(id, 2) or 0, byte(id, -1)
local id_at = 8 + skipped

local function has(text, needle) return find(text, needle, 1, true) ~= nil end

local function is_its(blob, offset)
  local version = byte(blob, 1 + offset)
  if version == 1 or version == 3 or (version == 2 and byte(blob, 7 + offset) ~= 0) then
    return byte(blob, 7 + offset) == length and sub(blob, 8 + offset, 7 + offset + length) == id
  end
  return has(blob, ARGV[7]) or has(blob, ARGV[8])
end

local function is_letter(field, about)
  if has(about, in_letter) then return true end
  return has(about, of_others) and is_its(redis.call('HGET', ARGV[9], field) or '', 0)
end

local bytes, seen, long = 0, 0, {}
local function answer(...) return {at, seen, bytes, long, ...} end

local function look_at_list(items, first)
  seen = seen + #items
  for position = 1, #items do
    local blob = items[position]
    bytes = bytes + #blob
    local version = byte(blob, 1 + skipped)
    if version ~= 1 or (byte(blob, id_at - 1) == length and byte(blob, id_at + length - 1) == last
      and (length == 1 or byte(blob, id_at + 1) == second)) then
      if is_its(blob, skipped) then return first + position - 1, blob end
    end
  end
end

local is_about_letters = kind == 'letters' or kind == 'numbers'
local function look_at_hash(fields)
  seen = seen + #fields / 2
  for i = 1, #fields, 2 do
    local field, value = fields[i], fields[i + 1]
    bytes = bytes + #value
    if is_about_letters then
      if is_letter(field, value) then return field, value end
    elseif kind ~= 'types' then
      if is_its(value, 0) then return field, value end
    else
      local parked = key_parked_messages(ARGV[9], field)
      if redis.call('LLEN', parked) > FEW then
        long[#long + 1] = field
      else
        local _, blob = look_at_list(redis.call('LRANGE', parked, 0, -1), 0)
        if blob then return field, blob end
      end
    end
  end
end

local TYPES = {list = 'list', parked = 'list', claims = 'zset'}
local of_type = TYPES[kind] or 'hash'
if redis.call('TYPE', key).ok ~= of_type then at = '' return answer() end
local place, blob
if of_type == 'list' then
  -- In one call: Redis walks a long list node by node to reach the start.
  local first = tonumber(at)
  -- A range counted from the right ends at the right end.
  local until_ = first < 0 and math.min(first + count - 1, -1) or first + count - 1
  local items = redis.call('LRANGE', key, string.format('%.0f', first), string.format('%.0f', until_))
  place, blob = look_at_list(items, first)
  at = (until_ == -1 or #items == 0 or (first >= 0 and #items < count)) and '' or string.format('%.0f', until_ + 1)
elseif kind == 'numbers' then
  local first, numbers, fields = tonumber(at), {}, {}
  for number = first, first + count - 1 do numbers[#numbers + 1] = string.format('%.0f', number) end
  for i, about in ipairs(redis.call('HMGET', key, unpack(numbers))) do
    if about then
      fields[#fields + 1] = numbers[i]
      fields[#fields + 1] = about
    end
  end
  place, blob = look_at_hash(fields)
  seen = count
  at = string.format('%.0f', first + count)
elseif kind == 'claims' then
  -- The server filters out proper ids; their messages are not touched.
  local page, fields = redis.call('ZSCAN', key, at, 'COUNT', count, 'MATCH', '*.*:*:*'), {}
  for i = 1, #page[2], 2 do
    fields[#fields + 1] = page[2][i]
    local message = redis.pcall('HGET', ARGV[9], page[2][i])
    fields[#fields + 1] = type(message) == 'string' and message or ''
  end
  place, blob = look_at_hash(fields)
  seen = math.max(seen, count)
  at = page[1] == '0' and '' or page[1]
else
  local page = redis.call('HSCAN', key, at, 'COUNT', count)
  place, blob = look_at_hash(page[2])
  at = page[1] == '0' and '' or page[1]
end
if blob then return answer(tostring(place), blob) end
return answer()
