"""How everything here speaks to Redis: the names of keys, Lua scripts, connections that wait and that do not."""
