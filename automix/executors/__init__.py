"""Executors: what trains many things at once, in this process, local processes or on Ray."""
