"""Migrations of the tables of ``taskapp.django``."""
