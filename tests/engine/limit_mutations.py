"""Scripts of limits with one line broken, which the machine of limits must tell from the right ones."""

from __future__ import annotations

from tests.engine.mutations import Mutation

LIMIT_MUTATIONS = [
    Mutation("a rate counts nothing", "turns", "write_rate(rate[1], rate[2], unpack(opens[i]))", "tostring(i)"),
    Mutation("a cost is one", "limits", "cost = cost or 1", "cost = 1"),
    Mutation("a burst is one too large", "limits", "each * (cost - burst)", "each * (cost - burst - 1)"),
    Mutation("a pause is nothing", "limits", "(cost - burst), pause), at", "(cost - burst), 0), at"),
    Mutation("one slot too many", "turns", "slot[3]) <= 0", "slot[3]) < 0"),
    Mutation("a claim takes no slot", "turns", "redis.call('SADD', key_slots(taken[1], taken[2])", "tostring(epoch"),
    Mutation(
        "a slot is never free again",
        "lanes",
        "redis.call('SREM', key_slots(slot[1], slot[2]), holder",
        "#('' .. holder",
    ),
    Mutation("nobody is let in for a free slot", "lanes", "      let_in(gate_of('S', slot[1], slot[2]))", ""),
    Mutation("a claim that is given back keeps its slots", "prelude", "\n  release(epoch, tag, blob)\n", "\n"),
    Mutation("what is set counts for nothing", "limits", "'set:' .. name)", "'get:' .. name)"),
    Mutation("a raised limit lets nobody in", "limit_reopen", "lanes().check_slots(1000)", ""),
    Mutation(
        "one lane at a gate is let in, and no other", "turns", "if has_gates(limits) then pass_on(limits) end", ""
    ),
    Mutation(
        "a gate never opens", "lanes", "redis.call('ZRANGEBYSCORE', key_gates()", "redis.call('ZRANGEBYSCORE', 'none'"
    ),
    Mutation(
        "a lane at a gate stays runnable",
        "lanes",
        "class), lane)\n  close_opened(queue, place)\n  end_class(",
        "class), '')\n  close_opened(queue, place)\n  end_class(",
    ),
    Mutation(
        "messages given back go behind", "lanes", "in_front and 'first' or 'last', in_front and -1 or 1", "'last', 1"
    ),
    Mutation(
        "the latest goes first",
        "turns",
        "= redis.call('ZRANGE', key, 0, 1, 'W",
        "= redis.call('ZREVRANGE', key, 0, 1, 'W",
    ),
    Mutation("a lane ends with its first message", "lanes", "  if next_sequence then", "  if false then"),
    Mutation(
        "a claimed message stays in its lane",
        "turns",
        "  redis.call('ZREM', key, field)\n  redis.call('HDEL'",
        "  redis.call('HDEL'",
    ),
    Mutation(
        "a claimed message keeps its bytes", "turns", "  redis.call('HDEL', key_limited_messages(queue), field)\n", ""
    ),
    Mutation("a claimed message is not leased", "turns", "redis.call('HSET', key_leased(epoch), tag, blob)", ""),
    Mutation("a delayed message is ready at once", "lanes", "if due and due > NOW then", "if false then"),
    Mutation("a due message stays delayed", "lanes", "redis.call('ZREM', delayed, due[i])", ""),
    Mutation(
        "blocked messages are not counted",
        "lanes",
        "add_blocked(queue, priority, gate, redis.call('ZCARD'",
        "tostring(redis.call('ZCARD'",
    ),
    Mutation(
        "a message that comes to a gate is not counted", "lanes", "    add_blocked(queue, priority, gate, 1)\n", ""
    ),
    Mutation(
        "the second of a key is queued",
        "lanes",
        "  if kind then\n    local _",
        "  if false then\n    local _",
    ),
    Mutation(
        "a refused one is called existing", "lanes", "and 'refused' or 'existing'", "and 'existing' or 'existing'"
    ),
    Mutation("the waiting one keeps its arguments", "lanes", "    replace(has, blob)\n", ""),
    Mutation(
        "two of the latest run at once",
        "limits",
        "unique[4] ~= 'latest' then return limits[3] end",
        "true then return limits[3] end",
    ),
    Mutation("a key is never forgotten", "limits", "    redis.call('UNLINK', key)\n", ""),
    Mutation("a key is free when its task starts", "limits", "if unique[2] ~= 'start' then", "if false then"),
    Mutation(
        "a key is kept after the start",
        "limits",
        "  elseif redis.call('HGET', key_unique(unique[1]), 'waiting') == id then",
        "  elseif false then",
    ),
    Mutation("a cancelled task keeps its key", "lanes", "if blob then never_runs(limits, id) end", ""),
    Mutation(
        "a task that waits again has no key",
        "lanes",
        "  begin_waiting(limits, id, queue, field, is_free)\n",
        "  if is_free then begin_waiting(limits, id, queue, field) end\n",
    ),
    Mutation("a letter takes no key", "replay", "if kind == 'existing' or kind == 'refused' then return other end", ""),
    Mutation("a follow-up runs at once", "settle", "due, own, node, dead_limit)", "0, own, node, dead_limit)"),
    Mutation("a retry conflicts with itself", "lanes", "if own == id then", "if false then"),
    Mutation("an ended claim keeps its slot", "settle", "if byte(tag, 1) == 48 then", "if false then"),
    Mutation("nobody is woken for what has limits", "lanes", "if not WOKEN[queue] then wake(queue) end", ""),
    Mutation("an empty lane stays at its gate", "lanes", "      redis.call('HDEL', key_blocked(queue), place)\n", ""),
    Mutation(
        "an emptied queue keeps its messages with limits",
        "empty",
        "if lanes().delete(queue, some[2][i]) then",
        "if false then",
    ),
    Mutation(
        "a claim does not pass the wake-up on for lanes",
        "claim",
        "levels[q][#levels[q] + 1] = key_fair(queue, priority)",
        "",
    ),
]
