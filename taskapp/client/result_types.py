"""Types of results, in ``result_types.pyi``: for type checkers only, no code imports this module."""
