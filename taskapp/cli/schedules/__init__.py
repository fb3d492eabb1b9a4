"""``taskapp schedules``: ``group`` has the commands that concern one schedule, the others a file each.

``terms`` is what ``add`` and ``edit`` take, ``check`` whether it can be sent, ``view`` what people see.
"""
