"""Scripts with one line broken, which the state machine must tell from the right ones."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from taskapp.redis.scripts import ROOMS


class Mutation(NamedTuple):
    """One broken line."""

    name: str
    script: str
    right: str
    wrong: str


MUTATIONS = [
    Mutation("what a stock client pushed is not adopted", "adopt", "waiting > 0 then adopt(queue)", "waiting < 0 then"),
    Mutation("what is adopted goes in front", "adopt", "'RIGHT', 'LEFT')", "'RIGHT', 'RIGHT')"),
    Mutation("the last of a stock client is adopted first", "adopt", "'RIGHT', 'LEFT')", "'LEFT', 'LEFT')"),
    Mutation("nobody is woken for what is adopted", "adopt", "if most < before then", "if false then"),
    Mutation("more is adopted than wanted", "adopt", "return most <= 0 or", "return most < 0 or"),
    Mutation("the lowest priority is adopted first", "adopt", "and n or 9 - n", "and 9 - n or n"),
    Mutation("the last queue is adopted first", "adopt", "= is_from_below", "= not is_from_below"),
    Mutation("what stock clients pushed outlives a purge", "empty", "redis.call('UNLINK', others)", ""),
    Mutation("a purge does not count what stock clients pushed", "empty", "      gone = gone + length\n", ""),
    Mutation("a promoted message stays delayed", "claim", "redis.call('ZREM', key, unpack(ids))", ""),
    Mutation("promoted messages go in front", "claim", "pcall(put_behind, queue", "pcall(put_in_front, queue"),
    Mutation("a claimed message is not leased", "claim", "if #lease > 0 then", "if false then"),
    Mutation("the last claim is not fenced off", "claim", "number <= tonumber(fence)", "number < tonumber(fence)"),
    Mutation("the lowest priority goes first", "claim", "9 - n or n", "n or 9 - n"),
    Mutation("no claim looks from below", "claim", "ARGV[6] == '1'", "ARGV[6] == '2'"),
    Mutation("parked messages ignore the types passed over", "claim", "not passed_over[task] and redis", "redis"),
    Mutation("parked messages go to any node that claims", "claim", "'t:' .. task) == 1", "'t:' .. task) >= 0"),
    Mutation("one message too many is claimed", "claim", "min(want - count, most or", "max(want - count + 1,"),
    Mutation("a claim does not pass the wake-up on", "claim", "wake(queue); any_left", "any_left"),
    Mutation("a lost lease may claim", "claim", "redis.call('ZSCORE', key_leases(), epoch)", "true"),
    Mutation("a settled message stays leased", "settle", "redis.call('HDEL', leased, tag)", ""),
    Mutation("a lost lease stores results", "settle", "redis.call('HEXISTS', leased, tag) == 1", "true"),
    Mutation("a follow-up is forgotten", "settle", "put_behind(queue, tonumber(ARGV[i + 2]), ARGV[i + 5])", ""),
    Mutation("a follow-up goes in front", "settle", "put_behind(queue", "put_in_front(queue"),
    Mutation("a follow-up wakes nobody", "settle", "wake(queue); woken = queue", "woken = queue"),
    Mutation("a delayed follow-up is ready at once", "settle", "if due > NOW then", "if due > NOW + 1e9 then"),
    Mutation("only the first follow-up is sent", "settle", "i = i + WIDTH[step]", "i = i + WIDTH[step] + 60"),
    Mutation("a part of a chord is not counted", "settle", "count_part(ARGV[i + 1]", "tostring(ARGV[i + 1]"),
    Mutation("a chord waits for one part too many", "prelude", "< tonumber(known[1]) +", "<= tonumber(known[1]) +"),
    Mutation("a chord ends again with each repeat", "prelude", "known[4] or not", "not"),
    Mutation("a part that succeeded gives way", "prelude", "string.sub(before, 1, 1) == '1'", "false"),
    Mutation("the end of a chord wakes nobody", "prelude", "'sent', 1)\n  wake(queue)", "'sent', 1)"),
    Mutation("a finished chord leaves its parts", "settle", "key_chord(ARGV[i + 1]), key_chord_parts(", "key_chord("),
    Mutation("messages are given back in reverse", "requeue", "for i = #ARGV, 9, -1 do", "for i = 9, #ARGV do"),
    Mutation("a message given back or reaped stays leased", "prelude", "redis.call('HDEL', leased, tag)", ""),
    Mutation("a message given back goes to the end", "prelude", "put('RPUSH', queue", "put('LPUSH', queue"),
    Mutation("neighbours of a crash can be buried", "prelude", "crash_limit - 1))", "crash_limit))"),
    Mutation("one crash too many is allowed", "prelude", "crashes >= crash_limit", "crashes > crash_limit"),
    Mutation("a crash is no delivery", "prelude", "kind ~= 'unstarted' then del", "kind == 'retry' then del"),
    Mutation("one dead letter too many is kept", "prelude", "if surplus <= 0 then", "if surplus <= 1 then"),
    Mutation("dead letters are not as they came", "prelude", "return string.sub(blob, 9)", "return blob"),
    Mutation("a crowd crashed, one alone did not", "beat", "'crashed' or 'neighbour'", "'neighbour' or 'crashed'"),
    Mutation("a silent server is nobody's excuse", "beat", "if NOW >= reap_after then", "do"),
    Mutation("reaped messages are in reverse", "prelude", "tag_of[ages[i]]", "tag_of[ages[#ages + 1 - i]]"),
    Mutation("a beat does not renew", "beat", "NOW + lease, epoch)", "NOW, epoch)"),
    Mutation("what a living node has is buried", "beat", ".. page[2][i]) == 1", ".. page[2][i]) == 2"),
    Mutation("parked messages wait forever", "beat", "if since > oldest then", "if true then"),
    Mutation("a cancelled message leaves its bytes", "cancel", "'HDEL', key_delayed_mes", "'HGET', key_delayed_mes"),
    Mutation("nothing is rescheduled", "reschedule", "'XX', ARGV[5]", "'NX', ARGV[5]"),
    Mutation("a replayed message keeps its counts", "replay", "with_counts(blob, version, priority", "tostring(blob"),
    Mutation("a replayed message stays dead", "replay", "redis.call('HDEL', key_dead_raw(queue), number)", ""),
    Mutation("recovery fences nothing off", "recover", "redis.call('HSET', key_node(ARGV[3]), 'fence', ARGV[4])", ""),
    Mutation("parked messages are in reverse", "prelude", "'LPUSH', key_parked", "'RPUSH', key_parked"),
    Mutation("closing counts a delivery", "close", "'unstarted'", "'retry'"),
    Mutation("emptying leaves parked messages", "empty", "redis.call('UNLINK', unpack(lists))", ""),
    Mutation("a node is opened without its types", "open", "'t:' .. ARGV[i], ARGV", "'u:' .. ARGV[i], ARGV"),
    Mutation("any name is counted by itself", "prelude", "redis.pcall('SISMEMBER', key_types(), task) == 1", "true"),
    Mutation("a push wakes nobody", "push", "wake(queue); last = queue", "last = queue"),
    Mutation("a delayed message is ready at once", "push", "if due > NOW then", "if due > NOW + 1e9 then"),
    Mutation("a message to be buried is gone", "settle", "bury(queue, priority, redis", "tostring(redis"),
    Mutation("a letter is reported only once", "beat", "hand_out(about.id", "tostring(about.id"),
    Mutation("a plain consumer gets letters to report", "beat", "'fence') then", "'fence') or alive == 1 then"),
    Mutation("a letter is reported at every beat", "beat", "'-inf', NOW - lease", "'-inf', NOW"),
    Mutation("a buried task fails twice", "settle", "if kind == 'U' then return", "if kind == 'U' then return 1,"),
    Mutation("a replayed letter fails after all", "replay", "'ZREM', key_unreported", "'ZSCORE', key_unreported"),
    Mutation("a purged letter leaves its bytes", "purge", "redis.call('HDEL', key_dead_raw(queue), ARGV[i])", ""),
    Mutation("a delivery is not counted", "claim", "tally('received', task, queue)", ""),
    Mutation("a crash is not counted", "prelude", "tally('crashed', task, queue)", ""),
    Mutation("a dead letter is not counted", "prelude", "tally('dead', task, queue)", ""),
    Mutation("a run is counted twice", "prelude", "  tally(what, task, queue)", "  tally(what, task, queue, 2)"),
    Mutation("what a settle counts is forgotten", "settle", "write_totals()", ""),
    Mutation("minutes are not kept", "prelude", "'HINCRBY', minute, field", "'HINCRBY', minute, 'x'"),
    Mutation("a histogram forgets the one before", "prelude", "(known.le[le] or 0) + 1", "1"),
    Mutation("a replayed letter has waited since it was submitted", "replay", "0, 0, NOW)", "0, 0)"),
    Mutation("a parked message has waited for a node", "claim", "and with_ready_at(blob, opened) or", "and blob or"),
    Mutation("a parked message has never waited", "claim", "item) < opened", "item) > 0"),
    Mutation("a message given back waits before its time", "prelude", "with_ready_at(blob, due)", "blob"),
    Mutation("a reaped message has waited in its node", "prelude", "is_early and due or NOW)", "is_early and due)"),
    Mutation("a message that is retried later waits before that", "prelude", "is_early and due or NOW)", "NOW)"),
    Mutation("what was not begun has not waited", "prelude", "elseif is_early then", "else due = due or 0"),
    Mutation(
        "a rescheduled message waits as before", "reschedule", "with_ready_at(ARGV[6] or blob, tonumber(ARGV[5]))",
        "blob",
    ),
    Mutation("the end of a chord has waited for it", "prelude", "with_ready_at(finish, NOW)", "finish"),
    Mutation("since when a task may run is said twice", "prelude", "rest = first + #READY_AT + 8", "count = count + 1"),
    Mutation("a header is not counted", "prelude", "    count = count + 1\n", ""),
    Mutation("the sixteenth header has no room", "prelude", "count < 16", "count < 17"),
    Mutation("a lost lease is not counted", "beat", "redis.call('HINCRBY', key_counts(), 'lost_leases', 1)", ""),
]  # fmt: skip


def copy_scripts(rooms: Path, mutation: Mutation) -> None:
    """Copy the engine's scripts to a folder of rooms, with one line broken."""
    folder = rooms / "engine" / "lua"
    folder.mkdir(parents=True)
    for script in (ROOMS / "engine" / "lua").iterdir():
        text = script.read_text()
        if script.name == f"{mutation.script}.lua":
            assert mutation.right in text, f"{script.name} has changed: no {mutation.right!r} in it any more"
            text = text.replace(mutation.right, mutation.wrong, 1)
        (folder / script.name).write_text(text)
