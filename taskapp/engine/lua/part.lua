#!lua flags=allow-oom
-- Count a part of a chord for a run that holds no claim here: 3 chord, 4 slot, 5 '1' success or '0', 6 value,
-- 7 seconds to keep it (0 forever), 8 the queue of its message.
-- Answers 1 if all parts are counted and the chord has no message to finish it: the caller must send one.
return count_part(ARGV[3], ARGV[4], ARGV[5], ARGV[6], tonumber(ARGV[7]), ARGV[8])
