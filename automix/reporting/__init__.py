"""Pictures, tables and pages made of results; nothing here computes a result."""
