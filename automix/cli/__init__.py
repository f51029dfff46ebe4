"""The command line: argv to experiment. The only place that prints."""
