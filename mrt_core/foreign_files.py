"""Files that are no checkpoint of ours, or one whose weights are quantised: what gives them away (spec 7.2)."""

import re

from .files import SafetensorsHeader

ZERO_TIMESTEP_MARKER = "__index_timestep_zero__"  # an empty tensor in Qwen-Image-Edit-2511
COMFYUI_QUANTISATION = "ComfyUI's mixed format"
PLAIN_DTYPES = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"}
QUANTISED_MARKS = (
    (re.compile(r"(^|\.)scaled_fp8$|\.scale_weight$"), "scaled fp8"),
    (re.compile(r"\.(comfy_quant|weight_scale|weight_scale_2)$"), COMFYUI_QUANTISATION),
    (re.compile(r"\.(absmax|quant_map|quant_state\..*)$"), "bitsandbytes"),
)

# Files that are often taken for a checkpoint: what gives them away, what they are, what to do.
OTHER_MODELS = (
    (re.compile(r"lora_(up|down|A|B)|^lora_unet_|\.lora\."), "a LoRA", "choose the model that it belongs to"),
    (
        re.compile(r"^decoder\.(middle\.0\.residual\.0|mid_block\.resnets\.0\.norm1)\.gamma$"),
        "an autoencoder alone",
        "choose the diffusion model that it belongs to",
    ),
    (re.compile(r"(^|\.)layers\.0\.self_attn\."), "a language model alone", "choose the diffusion model that it belongs to"),
    (
        re.compile(r"(^|\.)transformer_blocks\.\d+\.img_mod\."),
        "a part of a Qwen-Image model, such as one of several shards",
        "join the parts into one .safetensors file, or use the single-file version",
    ),
    (re.compile(r"(^|\.)double_blocks\.0\."), "a FLUX or HunyuanVideo model", "choose an MRT or Qwen-Image file"),
    (re.compile(r"(^|\.)joint_blocks\.0\."), "a Stable Diffusion 3 model", "choose an MRT or Qwen-Image file"),
    (re.compile(r"(^|\.)input_blocks\.0\."), "a Stable Diffusion model", "choose an MRT or Qwen-Image file"),
)  # fmt: skip


def describe_foreign(header: SafetensorsHeader) -> tuple[str, str]:
    """What a file without a Qwen-Image transformer is, and what to do."""
    if "training" in header.metadata:
        return "the state of a training run", "export it as a checkpoint first"
    if is_mage_flow(header, ""):
        return "a Mage-Flow model", "choose an MRT or Qwen-Image file"
    for pattern, what, remedy in OTHER_MODELS:
        if any(pattern.search(name) for name in header.tensors):
            return what, remedy
    return "a file of unknown tensors", "choose an MRT or Qwen-Image file"


def is_mage_flow(header: SafetensorsHeader, prefix: str) -> bool:
    """Whether it is another model whose tensors have Qwen-Image's names: text 2560 wide, tokens of 128 channels."""
    norm, out = (header.tensors.get(f"{prefix}{name}.weight") for name in ("txt_norm", "proj_out"))
    return norm is not None and out is not None and (norm.shape, out.shape[:1]) == ((2560,), (128,))


def quantisation(header: SafetensorsHeader) -> str | None:
    """The format of a file's quantised weights; None when they are plain numbers."""
    if "_quantization_metadata" in header.metadata:
        return COMFYUI_QUANTISATION
    for mark, what in QUANTISED_MARKS:
        if any(mark.search(name) for name in header.tensors):
            return what
    weights = [entry for name, entry in header.tensors.items() if not name.endswith(ZERO_TIMESTEP_MARKER)]
    return "/".join(sorted({entry.dtype for entry in weights} - PLAIN_DTYPES)) or None


def is_quantisation_tensor(name: str) -> bool:
    """Whether a tensor holds a scale or a mark of a quantised format rather than a weight."""
    return any(mark.search(name) for mark, _ in QUANTISED_MARKS) or name.endswith((".input_scale", ".scale_input"))
