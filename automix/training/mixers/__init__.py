"""Systems that learn how to mix while the classifier trains."""
