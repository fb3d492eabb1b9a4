"""Status files of nodes and beats, and the probes that read them."""
