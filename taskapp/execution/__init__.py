"""Support for running tasks anywhere: in a node, in a child process, or eagerly."""
