"""How messages travel. ``transport`` adapts kombu."""
