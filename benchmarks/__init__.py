"""What a task costs with taskapp and with other frameworks, on the same machine in the same run: ``make bench``.

frameworks.py    the frameworks, their settings, and when each acknowledges
environments.py  a virtual environment for each, from the pinned versions in peers/
servers.py       a Redis or a PostgreSQL for one measurement
processes.py     starts and ends workers, reads their CPU and memory
adaptors/        one file per framework: its app, and how to submit and read results
tasks.py         the tasks that all of them run
client.py        runs in the framework's environment: submits, reads results, measures both
bench.py         a store, workers and a client for one measurement
workloads/       what is measured, one file each
records.py       stores figures in a JSON file, so that a part can be measured again
report.py        writes docs/benchmarks.md from those figures, chart.py its chart
"""
