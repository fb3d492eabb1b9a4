#!lua flags=allow-oom
-- Count the end of a run that settles nothing: 3 queue, then as of the step 'K' of settle.
count_run(ARGV[3], unpack(ARGV, 4))
write_totals()
