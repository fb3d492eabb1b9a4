"""Monitoring: metrics and their exporter, Flower's tabs, history, task state, doctor, top."""
