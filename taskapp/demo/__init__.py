"""The main job on real input: every flight that left New York in 2013, from files to a report to an e-mail.

``flights``   the data: split by month, and the true numbers, computed without any task
``pipeline``  the work as Celery signatures: a chord over the months, the report, the e-mail
``timed``     schedules that change while beat and the work run
``run``       starts the processes, submits, watches, checks, cleans up
``view``      draws the progress
"""
