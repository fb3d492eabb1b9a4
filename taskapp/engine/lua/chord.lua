#!lua flags=allow-oom
-- Begin a chord: 3 id, 4 size (0 unknown), 5 about, 6 the message that finishes it ('' none), 7 seconds to keep it.
begin_chord(ARGV[3], ARGV[4], ARGV[5], ARGV[6], tonumber(ARGV[7]))
return 1
