"""A single run of a task: everything before and after the task's own function."""
