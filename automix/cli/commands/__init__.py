"""What each subcommand takes, and what it does with it: one module per command."""
