"""What benchmarks/decomposition.py compares on and with: a second generator of designs, a peer without a model, and scores."""
