"""The ``taskapp`` command, one file a command group. Results on stdout, problems on stderr, exit 0, 1 or 2."""
