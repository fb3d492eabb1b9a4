"""Converts messages of the engine and of RabbitMQ to kombu's and back."""
