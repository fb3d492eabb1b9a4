"""How messages of the engine, and of RabbitMQ, become kombu's and back."""
