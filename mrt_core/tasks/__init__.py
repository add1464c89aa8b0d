"""The four tasks: their slots, requests, and the way between pixels and latents."""
