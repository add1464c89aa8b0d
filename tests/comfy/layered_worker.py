"""Run by ComfyUI's Python inside its folder: Qwen-Image-Layered through the nodes, and through the library.

`layered_worker.py REPOSITORY REPORT` takes the model `models/mrt/layered.safetensors` and writes a JSON report.
"""

import json

from pack_in_comfy import NODES, REPORT

# isort: split
import torch
from given_text import GivenText
from mrt_pack.mrt_core.checkpoints.checkpoint import load_checkpoint
from mrt_pack.mrt_core.errors import MRTError
from mrt_pack.mrt_core.geometry import Size
from mrt_pack.mrt_core.layouts.layout import full_frame_layout
from mrt_pack.mrt_core.models.autoencoder import Autoencoder
from mrt_pack.mrt_core.models.configs import AutoencoderConfig
from mrt_pack.mrt_core.models.sequence import patchify
from mrt_pack.mrt_core.pipeline import Pipeline, SamplingOptions
from mrt_pack.mrt_core.tasks.region_codec import RegionCodec
from mrt_pack.mrt_core.tasks.request import image_to_layers_request
from mrt_pack.nodes.autoencoder import load_vae
from mrt_pack.nodes.checkpoint_files import checkpoint_path
from mrt_pack.nodes.convert import image_to_pixels

NAME, LAYERS, STEPS, SEED, CFG = "layered.safetensors", 3, 4, 5, 4.0
FRAME = Size(90, 60)


def message_of(run) -> str:
    try:
        run()
    except MRTError as error:
        return str(error)
    return ""


def main() -> None:
    def run(name: str, *args, **kwargs):
        return NODES[name].execute(*args, **kwargs).result

    torch.manual_seed(0)
    image = torch.rand(1, FRAME.height // 10, FRAME.width // 10, 3).repeat_interleave(10, 1).repeat_interleave(10, 2)
    model, _, vae = run("MRTModelLoader", NAME, "fp32")
    width = model.model.mrt_info.transformer.text_dim
    states = {"a sign": torch.randn(7, width), " ": torch.randn(5, width)}
    positive, negative = ([[text[None], {}]] for text in states.values())
    outputs = run("MRTImageToRegionLatents", positive, negative, vae, image, model=model, layers=LAYERS)
    sampled = run("MRTMaskedRegionSampler", model, *outputs, SEED, STEPS, CFG)[0]
    layers, images, *_ = run("MRTLayerSplitter", sampled, vae)
    checkpoint = load_checkpoint(checkpoint_path(NAME))
    info = checkpoint.info
    pipeline = Pipeline(checkpoint, GivenText(states), RegionCodec(checkpoint.autoencoder, info.region_mode))
    request = image_to_layers_request(image_to_pixels(image, "image"), full_frame_layout(FRAME, LAYERS), "a sign")
    with torch.inference_mode():
        (tokens,) = pipeline.sample(pipeline.prepare(request, SamplingOptions((SEED,), STEPS, CFG)))
    streams = [model.model.process_latent_in(stream) for stream in sampled["samples"].unbind()]
    found = torch.cat([patchify(stream[0, :, 0]) for stream in streams])
    unconnected = run("MRTImageToRegionLatents", positive, negative, vae, image, layers=LAYERS)
    rgb = load_vae(Autoencoder(AutoencoderConfig(8, 3, 3)).state_dict())
    paper = load_vae(Autoencoder(AutoencoderConfig(8, 3, 4)).state_dict())
    wide = [[torch.randn(1, 7, width + 1), {}]]
    other = run("MRTImageToRegionLatents", wide, negative, vae, image, model=model, layers=LAYERS)
    report = {
        "difference": float((found - tokens).abs().max()),
        "scale": float(tokens.abs().max()),
        "names": [layer["name"] for layer in layers["layers"]],
        "sizes": [list(layer["image"].shape[-3:-1]) for layer in layers["layers"]],
        "images": list(images.shape),
        "composite": float((run("MRTLayerSplitter", sampled, vae)[3][..., :3] - image).abs().max()),
        "rgb encoder": message_of(
            lambda: run("MRTImageToRegionLatents", positive, negative, rgb, image, layers=LAYERS)
        ),
        "rgb decoder": message_of(lambda: run("MRTLayerSplitter", sampled, rgb)),
        "other encoder": message_of(
            lambda: run("MRTImageToRegionLatents", positive, negative, paper, image, model=model, layers=LAYERS)
        ),
        "other text": message_of(lambda: run("MRTMaskedRegionSampler", model, *other, SEED, STEPS, CFG)),
        "unconnected": message_of(lambda: run("MRTMaskedRegionSampler", model, *unconnected, SEED, STEPS, CFG)),
    }
    REPORT.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
