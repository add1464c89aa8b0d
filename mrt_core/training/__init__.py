"""Training of the small checkpoint, and of full-size ones from public weights. Nothing outside this package imports it."""
