"""What is watched: metrics, the exporter, and how Flower is started."""
