"""MRT for ComfyUI: the entry point that ComfyUI calls when it loads this folder from custom_nodes.

The library is `mrt_core`, which never imports ComfyUI. The extension registers no nodes yet.
"""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """The ComfyExtension with this pack's nodes."""
    from comfy_api.latest import ComfyExtension  # not at the top: pytest imports this file where there is no ComfyUI

    class MRTExtension(ComfyExtension):
        async def get_node_list(self) -> list:
            return []

    return MRTExtension()
