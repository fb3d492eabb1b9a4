"""From a claimed message to a request, and from the end of a run to its settlement and history record."""
