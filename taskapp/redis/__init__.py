"""Access to Redis: names of keys, Lua scripts, blocking and non-blocking connections."""
