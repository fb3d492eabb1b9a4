"""From the message of a claim to a request, and from the end of a run to what is told of it."""
