"""What happens around one run: the Task base class and typed payloads."""
