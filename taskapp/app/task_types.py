"""Types of tasks and of the decorators that make them, in ``task_types.pyi``: no code imports this module."""
