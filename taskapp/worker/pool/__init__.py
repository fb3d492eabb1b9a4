"""Where tasks run: slots for coroutines, threads and child processes."""
