"""Timed jobs; ``times`` says when something is due and reads no clock."""
