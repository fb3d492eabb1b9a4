"""What several task types use."""
