"""No framework: what a task costs if only the necessary work is done, 100 tasks at a time.

One script claims tasks and records what is held. Each is decoded and called, its result is stored and
published, and its claim ends together with the next one.
"""

from __future__ import annotations

import json
import signal
import uuid
from collections.abc import Sequence
from typing import Any

import msgspec
from redis import Redis

from benchmarks import tasks
from benchmarks.adaptors import STORE_URL, Call

BATCH = 100
CLAIM = """
if #ARGV > 1 then redis.call('HDEL', KEYS[2], unpack(ARGV, 2)) end
local taken = redis.call('RPOP', KEYS[1], ARGV[1]) or {}
local answer = {}
for _, message in ipairs(taken) do
    local tag = redis.call('INCR', KEYS[3])
    redis.call('HSET', KEYS[2], tag, message)
    answer[#answer + 1] = tag
    answer[#answer + 1] = message
end
return answer
"""
encode, decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder().decode


class Client:
    """Pushes 500 at a time."""

    async def open(self) -> None:
        self.redis = Redis.from_url(STORE_URL)

    async def close(self) -> None:
        self.redis.close()

    async def submit(self, name: str, *arguments: Any) -> str:
        task_id = str(uuid.uuid4())
        self.redis.lpush("queue", encode((task_id, name, arguments)))
        return task_id

    async def submit_many(self, calls: Sequence[Call]) -> list[str]:
        ids: list[str] = []
        for first in range(0, len(calls), 500):
            pipeline = self.redis.pipeline(transaction=False)
            for name, arguments in calls[first : first + 500]:
                ids.append(str(uuid.uuid4()))
                pipeline.execute_command("LPUSH", "queue", encode((ids[-1], name, arguments)))
            pipeline.execute()
        return ids

    async def is_done(self, handle: str) -> bool:
        return bool(self.redis.exists("result:" + handle))

    async def result(self, handle: str) -> Any:
        while (value := self.redis.get("result:" + handle)) is None:
            pass
        return json.loads(value)["result"]


def work(redis: Redis) -> None:
    """Run tasks until told to stop."""
    claim = redis.register_script(CLAIM)
    redis.ping()
    claim(keys=("none", "held", "tags"), args=(1,))
    ended: list[int] = []
    while True:
        taken = redis.execute_command("EVALSHA", claim.sha, 3, "queue", "held", "tags", BATCH, *ended)
        ended = []
        if not taken:
            redis.blmove("queue", "queue", 0.1, "RIGHT", "RIGHT")
            continue
        pipeline = redis.pipeline(transaction=False)
        for tag, message in zip(taken[::2], taken[1::2], strict=True):
            task_id, name, arguments = decode(message)
            value = json.dumps({"status": "SUCCESS", "result": getattr(tasks, name)(*arguments), "task_id": task_id})
            pipeline.execute_command("SETEX", "result:" + task_id, 86_400, value)
            pipeline.execute_command("PUBLISH", "result:" + task_id, value)
            ended.append(tag)
        pipeline.execute()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    work(Redis.from_url(STORE_URL))
