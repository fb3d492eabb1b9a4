"""The worker node: consuming messages, running tasks in the pool, draining and recycling."""
