"""How good the layers are: metrics, and their measurement on held-out synthetic designs."""
