"""MRT for ComfyUI: the entry point that ComfyUI calls when it loads this folder from custom_nodes.

The library is `mrt_core`, which never imports ComfyUI; `nodes` adapts it.
"""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """The ComfyExtension with this pack's nodes."""
    from .nodes.extension import MRTExtension  # not at the top: pytest imports this file where there is no ComfyUI

    return MRTExtension()
