-- Let no task of a rate's key start for a while, on any node: 3 whose run asks for it, which ends no longer pause ('' it is
-- nobody's), 4 name of the limit, 5 key, 6 duration (ms; 0 ends a pause).
lanes().pause(ARGV[4], ARGV[5], tonumber(ARGV[6]), ARGV[3] ~= '')
return 1
