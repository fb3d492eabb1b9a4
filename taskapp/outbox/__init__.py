"""The outbox: tasks submitted in a transaction of the user's own database, queued if and only if it commits.

    with_session(session).delay(…) ──► row in taskapp_outbox ──► COMMIT ──► Relay: claim, push, delete ──► the broker

``capture`` makes the row, ``sqlalchemy`` (here) and ``taskapp.django`` put it into the user's transaction. After the
commit the submitting process relays it at once on a background thread (``promptly``); rows left behind by a process
that died, or while the broker was away, are queued by any ``Relay``: ``taskapp outbox run``.

A row is deleted only after its push is confirmed. A relay that dies in between leaves the row, and the next relay
pushes it again under the same id, which Redis then ignores (``push.lua``).
"""
