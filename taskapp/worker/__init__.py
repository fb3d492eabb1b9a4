"""What a node does: its pool, what happens around one run, what it tells probes, and its end."""
