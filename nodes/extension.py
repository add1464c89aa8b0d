"""The list of nodes that ComfyUI is given."""

from comfy_api.latest import ComfyExtension, io

from .checkpoint_files import register_folder
from .documents import LoadLayeredPSD, SaveLayeredPSD
from .examples import copy_examples
from .layout_builder import LayoutBuilder
from .loader import LoadModel
from .region_latents import ImageToRegionLatents, LayersToRegionLatents, TextToRegionLatents
from .sampler import MaskedRegionSampler
from .splitter import LayerSplitter

NODES: tuple[type[io.ComfyNode], ...] = (
    LoadModel,
    LayoutBuilder,
    TextToRegionLatents,
    ImageToRegionLatents,
    LayersToRegionLatents,
    MaskedRegionSampler,
    LayerSplitter,
    SaveLayeredPSD,
    LoadLayeredPSD,
)


class MRTExtension(ComfyExtension):
    """This pack."""

    async def on_load(self) -> None:
        register_folder()
        copy_examples()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return list(NODES)
