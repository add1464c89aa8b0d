"""Load MRT Model."""

import torch
from comfy_api.latest import io

from ..mrt_core.checkpoints.checkpoint import read_parts
from ..mrt_core.errors import MRTError
from ..mrt_core.models.preview import fit_preview_colors
from .autoencoder import load_vae, region_codec
from .checkpoint_files import checkpoint_names, checkpoint_path
from .diffusion_model import load_diffusion_model
from .text_encoder import load_text_encoder

DTYPES = {
    "default": None,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp8_e4m3fn": torch.float8_e4m3fn,
}


class LoadModel(io.ComfyNode):
    """A checkpoint as MODEL, and CLIP and VAE where the file bundles them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MRTModelLoader",
            display_name="Load MRT Model",
            category="MRT",
            description="Loads a Masked Region Transformer: the bundled mrt-tiny, or a model from models/mrt or "
            "models/diffusion_models: .safetensors, the index of its shards, the model_index.json of a diffusers folder, or "
            ".gguf. CLIP and VAE are there when the file bundles them.",
            search_aliases=["mrt checkpoint", "layered image model"],
            inputs=[
                io.Combo.Input("model_name", options=checkpoint_names(), tooltip="The checkpoint."),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(DTYPES),
                    default="default",
                    advanced=True,
                    tooltip="The precision that the weights are kept in; default lets ComfyUI choose. Quantised weights "
                    "stay as they are and compute in it.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="Samples with MRT Masked-Region Sampler or KSampler."),
                io.Clip.Output(
                    display_name="clip", tooltip="For CLIP Text Encode; nothing if the file has no text encoder."
                ),
                io.Vae.Output(
                    display_name="vae", tooltip="Decodes and encodes layers; nothing if the file has no autoencoder."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, model_name: str) -> bool | str:
        """Whether there is such a checkpoint, in our words: ComfyUI's own would list every file there is."""
        try:
            checkpoint_path(model_name)
        except MRTError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, model_name: str, weight_dtype: str = "default") -> io.NodeOutput:
        path = checkpoint_path(model_name)
        parts = read_parts(path)
        model = load_diffusion_model(path, parts, DTYPES[weight_dtype])
        clip = vae = None
        if parts.info.text_encoder:
            clip = load_text_encoder(parts.info.text_encoder, parts.tokenizer, parts.text_encoder)
        if parts.autoencoder:
            vae = load_vae(parts.autoencoder)
            _set_preview_colors(model, vae)
        return io.NodeOutput(model, clip, vae)


def _set_preview_colors(model, vae) -> None:
    """Give live previews the colours of this autoencoder: Wan's own do not fit another one's latents."""
    latent_format = model.model.latent_format
    factors, bias = fit_preview_colors(region_codec(vae, "crop", pixels=0).autoencoder)  # of raw latents
    deviation, mean = latent_format.latents_std.flatten(), latent_format.latents_mean.flatten()
    latent_format.set_preview_colors(deviation[:, None] * factors, bias + mean @ factors)
