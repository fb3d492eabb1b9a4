"""``taskapp schedules``: ``group`` has the commands for schedules, the other commands have a file each.

``options`` has the options of ``add`` and ``edit``, ``check`` tries out a schedule, ``view`` formats the output.
"""
