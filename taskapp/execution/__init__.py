"""What a run of a task needs wherever it takes place: in a node, in a child process, or eagerly."""
