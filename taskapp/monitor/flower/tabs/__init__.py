"""The tabs, one a module: see ``taskapp.monitor.flower.tab``."""
