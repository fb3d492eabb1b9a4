"""Logging: formats, handlers and writers.

``setup``       Celery's logging setup with taskapp's handlers
``formatters``  lines for people or machines
``handlers``    stream and file handlers on top of a writer
``guarded``     loggers that survive what a project's handlers raise
``task_lines``  the two lines of each task
``writer``      many lines in one call, in order, without waiting for a reader
``sink``        the file, pipe, terminal or socket behind a writer
"""
