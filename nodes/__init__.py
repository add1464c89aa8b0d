"""The ComfyUI nodes: thin adapters between ComfyUI's types and `mrt_core`. Only this folder imports ComfyUI."""
