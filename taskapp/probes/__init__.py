"""What nodes and beats write of themselves, and the probes that read it."""
