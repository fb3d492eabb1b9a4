"""The fault matrix: real servers, real workers, real kills; every execution is counted, id by id.

``python -m tests.faults --size quick`` plays every row and prints what was sent, ran, ran twice and
was lost. ``fault_tasks`` is what the workers run, ``submitter`` what sends, ``harness`` starts and
kills, ``runs`` counts, ``rows`` holds the faults and ``table`` shows the outcome.
"""
