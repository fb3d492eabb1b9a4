"""Helpers shared by several task types."""
