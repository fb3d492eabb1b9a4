"""The node as a process: stop signals, running tasks at its end, and PID 1 of a container."""
