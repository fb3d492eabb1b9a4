"""One run of one task: what goes before and after the task's own function."""
