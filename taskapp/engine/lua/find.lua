#!lua flags=allow-oom
-- Look through a part of a list or a hash for the message of one task; changes nothing.
-- 3 key, 4 what lies there: 'list', messages; 'parked', the same with 8 bytes of time before each; 'hash', messages by
-- tag; 'claims', delayed messages that lie under a tag, for want of an id, in the hash 9; 'letters', what is known of
-- dead letters by number, their bytes in the hash 9; 'numbers', the same, by number from 5 on; 'types', task types of
-- which something is parked in queue 9. 5 where to go on ('0' at first; in a list counted from the left, below 0 from
-- the right), 6 id, 7 and 8 how the id stands in the JSON of other programs, 10 how many entries to look at at most.
-- Answers {where to go on ('' at its end), how many were looked at, their bytes, task types of which so much is parked
-- that it was not looked at}, and behind it, if the message was among these, its place and its bytes (of a letter: what
-- is known of it).
-- Keeps: a list is gone through from the left, where messages are put behind others: those that come meanwhile push what
-- is still to be looked at further on, those that are taken leave on the right, and nothing is passed over.
local key, kind, at, id, count = ARGV[3], ARGV[4], ARGV[5], ARGV[6], tonumber(ARGV[10])
local FEW = 10 -- messages of one type
local byte, sub, find = string.byte, string.sub, string.find
local in_letter, of_others = '"id":' .. cjson.encode(id), '"id":""'
local skipped = (kind == 'parked' or kind == 'types') and 8 or 0 -- bytes before each message
-- Of each message three bytes are compared first: cutting out its id would make a string of each.
local length, second, last = #id, byte(id, 2) or 0, byte(id, -1)
local id_at = 8 + skipped

local function has(text, needle) return find(text, needle, 1, true) ~= nil end

local function is_its(blob, offset)
  local version = byte(blob, 1 + offset)
  if version == 1 or (version == 2 and byte(blob, 7 + offset) ~= 0) then
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
  -- In one piece: Redis goes to the place in a long list node by node.
  local first = tonumber(at)
  -- What is counted from the right ends there.
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
  -- Ids are passed over by the server, unseen; their messages are not touched.
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
