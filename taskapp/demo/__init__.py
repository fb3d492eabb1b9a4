"""The main job on real input: every flight that left New York in 2013, from files to report to mail.

``flights``   the data: split by month, and the true numbers computed without any task
``pipeline``  the work as Celery signatures: a chord over the months, the report, the mail
``timed``     schedules, changed while beat and the work run
``run``       starts the processes, submits, watches, checks, cleans up
``view``      what is shown meanwhile
"""
