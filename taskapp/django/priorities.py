"""Django's priorities, -100 to 100, as those of queues, 0 to 9.

0 is 4. Above it are five levels of twenty: 1 to 20 is 5, 81 to 100 is 9. Below it are four of twenty-five: -1 to -25 is
3, -76 to -100 is 0.
"""

from __future__ import annotations

NEUTRAL = 4
ABOVE, BELOW = 20, 25
"""How many of Django's priorities make one level."""


def level_of(priority: int) -> int:
    """Return the priority in the queue of a task with Django's ``priority``."""
    return NEUTRAL - (-priority // ABOVE) if priority > 0 else NEUTRAL + (priority // BELOW)
