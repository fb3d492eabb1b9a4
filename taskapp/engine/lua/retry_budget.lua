-- Take one retry from the budget of a task type: 3 task type, 4 period (ms), 5 most in a period (0: a share of its runs),
-- 6 that share, 7 the least that is allowed then. Answers 1, or 0 if the budget is used up.
return lanes().take_retry(ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]))
