"""Limits of tasks: read from the options of a type and of one call, and computed from the arguments of each task.

    options of a type ──► declaration (checked once) ──► Limiter ──► limits of each task, as its message carries them

``options``      the names of all options, and which of them a call may give
``rates``        ``"100/m"`` and its kin
``key_template`` ``"{tenant}"``: a key made of arguments
``arguments``    finds an argument of a call by its name
``declaration``  reads and checks the options of a type
``limiter``      computes the limits of one task
``of_call``      the options of one call, over those of its type
"""
