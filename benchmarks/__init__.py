"""What a task costs with taskapp, and with its peers on the same machine in the same hour: ``make bench``.

frameworks.py    who takes part, with which settings, and what each promises
environments.py  a virtual environment for each, from the pinned versions in peers/
servers.py       a Redis or a PostgreSQL for one measurement
processes.py     workers started, ended, and their CPU and memory read
adaptors/        one file a framework: its app, and how to submit and read results with it
tasks.py         the tasks all of them run
client.py        runs in the framework's environment: submits, reads results, tells what that took
bench.py         a store, workers and a client for one measurement
workloads/       what is measured, one file each
records.py       figures kept in a JSON file, so that a part can be measured anew
report.py        docs/benchmarks.md from those figures, chart.py its picture
"""
