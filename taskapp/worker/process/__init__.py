"""The node as a process: signals, what it runs when it comes to end, and the first process of a container."""
