"""Files that are no checkpoint of ours: what gives them away, and what to do."""

import re
from collections.abc import Mapping

from ..weights.quantisation import find_other_software
from ..weights.safetensors_header import TensorEntry

ART_MODEL = "ART, the Anonymous Region Transformer"
AUTOENCODER = "an autoencoder alone"
LAST_CONVOLUTION = ("decoder.conv_out.weight", "decoder.head.2.weight")  # of the two public namings
CHOOSE = "choose an MRT or Qwen-Image file"
ARCHITECTURE = "general.architecture"  # a field of GGUF files

CONTROL_NETWORK = re.compile(
    r"(^|\.)(controlnet_\w+|control_(blocks|img_in|model|context_embedder|all_x_embedder|layers)|vace_\w+|zero_convs|"
    r"input_hint_block)\."
)

# Files that are often taken for a checkpoint: what gives them away, what they are, what to do.
OTHER_MODELS = (
    (
        re.compile(r"(^|\.)layer_pe$"),
        ART_MODEL,
        "its weights are not loaded by this package; choose an MRT or Qwen-Image file",
    ),
    (
        re.compile(r"lora_(up|down|A|B)|^lora_unet_|\.lora\.|\.(hada_w1|lokr_w1)(_a)?(\.|$)|\.oft_"),
        "a LoRA",
        "choose the model that it belongs to, and give this one with --lora",
    ),
    (
        re.compile(r"^decoder\.(middle\.0\.residual\.0|mid_block\.resnets\.0\.norm1)\.gamma$"),
        AUTOENCODER,
        "choose the diffusion model that it belongs to",
    ),
    (re.compile(r"(^|\.)layers\.0\.self_attn\."), "a language model alone", "choose the diffusion model that it belongs to"),
    (
        re.compile(r"(^|\.)transformer_blocks\.\d+\.img_mod\."),
        "a part of a Qwen-Image model, such as one of several shards",
        "give the folder of the shards, the index beside them, or the single-file version",
    ),
    (re.compile(r"(^|\.)(double_blocks|single_transformer_blocks)\.0\."), "a FLUX or HunyuanVideo model", CHOOSE),
    (re.compile(r"(^|\.)joint_blocks\.0\."), "a Stable Diffusion 3 model", CHOOSE),
    (re.compile(r"(^|\.)input_blocks\.0\."), "a Stable Diffusion model", CHOOSE),
)  # fmt: skip


def describe_foreign(tensors: Mapping[str, TensorEntry], metadata: Mapping[str, str]) -> tuple[str, str]:
    """What weights without a Qwen-Image transformer are, and what to do."""
    if "training" in metadata:
        return "the state of a training run", "export it as a checkpoint first"
    if is_control_network(tensors):
        return "a ControlNet", "it steers another model and makes no layers itself: choose an MRT or Qwen-Image file"
    if is_mage_flow(tensors, ""):
        return "a Mage-Flow model", CHOOSE
    if method := find_other_software(tensors.keys()):
        return f"a file quantised as {method}", "use a bf16, fp8 or GGUF file of an MRT or Qwen-Image model"
    for pattern, what, remedy in OTHER_MODELS:
        if any(pattern.search(name) for name in tensors):
            return what + (_image_channels(tensors) if what == AUTOENCODER else ""), remedy
    architecture = metadata.get(ARCHITECTURE)
    what = f"a GGUF file of the architecture {architecture[:40]!r}" if architecture else "a file of unknown tensors"
    return what, CHOOSE


def _image_channels(tensors: Mapping[str, TensorEntry]) -> str:
    """Whether an autoencoder decodes transparency, in words; empty where its shapes do not tell."""
    last = next((tensors[name] for name in LAST_CONVOLUTION if name in tensors), None)
    words = {3: " for RGB, without alpha", 4: " for RGBA"}
    return words.get(last.shape[0], "") if last and last.shape else ""


def is_control_network(tensors: Mapping[str, TensorEntry]) -> bool:
    """Whether the tensors are a ControlNet's or alike, which also has a few blocks of the model that it steers."""
    return any(map(CONTROL_NETWORK.search, tensors))


def is_mage_flow(tensors: Mapping[str, TensorEntry], prefix: str) -> bool:
    """Whether it is another model whose tensors have Qwen-Image's names: text 2560 wide, tokens of 128 channels."""
    norm, out = (tensors.get(f"{prefix}{name}.weight") for name in ("txt_norm", "proj_out"))
    return norm is not None and out is not None and (norm.shape, out.shape[:1]) == ((2560,), (128,))
