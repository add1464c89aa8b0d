"""Run by ComfyUI's Python inside its folder: samples every task through the nodes and through the library alone.

`model_worker.py REPOSITORY REPORT` writes a JSON report with the largest differences per task; with `timing` as a third
argument, the time per step.
"""

import json
import time
from dataclasses import replace
from itertools import islice

from pack_in_comfy import MORE, NODES, REPORT

# isort: split
import comfy.sd
import numpy as np
import torch
from mrt_pack.mrt_core import documents
from mrt_pack.mrt_core.checkpoints.bundled import bundled_checkpoint
from mrt_pack.mrt_core.checkpoints.checkpoint import Checkpoint, Sampling
from mrt_pack.mrt_core.layouts.documents import load_layout
from mrt_pack.mrt_core.layouts.layout import Region
from mrt_pack.mrt_core.lora.student import sampling_to_json
from mrt_pack.mrt_core.models.sequence import patchify, split_slots
from mrt_pack.mrt_core.pipeline import Pipeline, SamplingOptions
from mrt_pack.mrt_core.tasks.job import job_for
from mrt_pack.mrt_core.tasks.realise import assemble, decode_layers
from mrt_pack.mrt_core.tasks.region_codec import canvas_regions
from mrt_pack.mrt_core.tasks.request import (
    add_layers_request,
    image_to_layers_request,
    restyle_layers_request,
    text_to_layers_request,
    with_background,
)
from mrt_pack.nodes.convert import image_to_pixels, layers_to_stack, pixels_to_image, stack_to_layers
from PIL import Image

import nodes as comfy_nodes

TIMING = "timing" in MORE
DEMO = bundled_checkpoint().parent / "demo"
STEPS, SEED = 8, 7


def run(name: str, *args, **kwargs):
    """What a node of this pack or of ComfyUI returns."""
    if name in NODES:
        return NODES[name].execute(*args, **kwargs).result
    node = comfy_nodes.NODE_CLASS_MAPPINGS[name]
    return getattr(node(), node.FUNCTION)(*args, **kwargs)


def picture(name: str) -> torch.Tensor:
    return pixels_to_image(np.asarray(Image.open(DEMO / name)))


def cases(vae, positive, negative):
    """Each task as a request of the library and as the outputs of its node: positive, negative, latent."""
    text = load_layout(DEMO / "text_layout.json")
    yield text_to_layers_request(text), run("MRTTextToRegionLatents", positive, negative, text)

    layout, image = load_layout(DEMO / "image_layout.json"), picture("image.png")
    request = image_to_layers_request(image_to_pixels(image, "image"), layout)
    yield request, run("MRTImageToRegionLatents", positive, negative, vae, image, layout)

    stack = with_background(documents.load(DEMO / "document.psd"))
    region = Region("Heart", text.regions[0].box._replace(x=100, width=44, height=40), "a red heart")
    wanted = type(text)(stack.frame, (region,))
    mode = {"mode": "add", "layout": wanted, "place": 1}
    request = add_layers_request(stack, {1: region})
    yield request, run("MRTLayersToRegionLatents", positive, negative, vae, stack_to_layers(stack), mode)

    stack = with_background(documents.load(DEMO / "styled.psd"))
    height, width = stack.layers[3].pixels.shape[:2]
    asset = torch.nn.functional.interpolate(picture("asset.png").movedim(-1, 1), (height, width)).movedim(1, -1)
    mode = {"mode": "restyle", "assets": asset, "targets": "3"}
    request = restyle_layers_request(stack, {2: image_to_pixels(asset, "asset")})
    yield request, run("MRTLayersToRegionLatents", positive, negative, vae, stack_to_layers(stack), mode)


def normalised(latent: dict, model) -> torch.Tensor:
    """All tokens (N, 64) of a LATENT in the model's normalised space."""
    streams = [model.model.process_latent_in(stream) for stream in latent["samples"].unbind()]
    return torch.cat([patchify(stream[0, :, 0]) for stream in streams])


def largest(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


def compare(pipeline: Pipeline, model, vae, request, outputs) -> dict:
    """The largest differences of the nodes' results from the library's."""

    def node(steps: int, cfg: float, solver: str = "auto", patched=model) -> dict:
        return run("MRTMaskedRegionSampler", patched, *outputs, SEED, steps, cfg, shift, solver)[0]

    def library(steps: int, cfg: float, **settings) -> torch.Tensor:
        info = replace(pipeline.info, sampling=replace(pipeline.info.sampling, **settings), image_sampling=None)
        changed = Pipeline(Checkpoint(pipeline.transformer, None, None, info), pipeline.text_encoder, pipeline.codec)
        return changed.sample(changed.prepare(request, SamplingOptions((SEED,), steps, cfg, shift)))[0]

    positive, negative, latent = outputs
    shift = pipeline.info.sampling.shift  # which KSampler takes from the model, whatever the task
    alone, sampled = library(STEPS, 1.0), node(STEPS, 1.0)
    (stock,) = run("KSampler", model, SEED, STEPS, 1.0, "euler", "simple", positive, negative, latent)
    job = job_for(request)
    slots = job.slot_layout
    clean = slots.expand([slot.clean for slot in slots.slots])
    (layers, *_) = NODES["MRTLayerSplitter"].execute(sampled, vae, match_image=False).result
    stack = layers_to_stack(layers)
    made = decode_layers(job, split_slots(alone, slots), pipeline.codec)
    pairs = list(zip(stack.layers, assemble(request, made).layers, strict=True))
    place = canvas_regions(slots, slots.slots[:1])
    (picture,) = pipeline.codec.decode(split_slots(alone, slots)[:1], place)
    (decoded,) = run("VAEDecode", vae, sampled)
    found = {
        "sampler": largest(normalised(sampled, model), alone),
        "ksampler": largest(normalised(stock, model), alone),
        "guided": largest(normalised(node(3, 2.5), model), library(3, 2.5)),
        "student": largest(normalised(node(3, 1.0, "renoise"), model), library(3, 1.0, solver="renoise")),
        "clean": largest(normalised(sampled, model)[clean], normalised(latent, model)[clean]) if clean.any() else 0.0,
        "scale": float(alone.abs().max()),
        "levels": max(int(abs(a.pixels.astype(int) - b.pixels).max()) for a, b in pairs),
        "placed": all((a.x, a.y, a.name, a.caption) == (b.x, b.y, b.name, b.caption) for a, b in pairs),
        "stock_decode": largest(decoded[0], torch.from_numpy(picture) / 255),
    }
    if request.task == "text_to_layers":
        first = normalised(node(3, 1.0), model)
        found["lora"] = largest(normalised(node(3, 1.0, patched=with_lora(model)), model), first)
        student = with_lora(model, {"mrt": sampling_to_json(Sampling(3, 1.0, shift=shift, solver="renoise"))})
        asked = node(3, 1.0, "renoise", patched=with_lora(model))
        found["student_lora"] = largest(normalised(node(0, 0.0, patched=student), model), normalised(asked, model))
        found["after_lora"] = largest(normalised(node(3, 1.0), model), first)
    return found


def with_lora(model, metadata: dict[str, str] | None = None):
    """The model with a random LoRA of rank 4 on one projection of every block, through the stock loader's function."""
    generator = torch.Generator().manual_seed(0)
    lora = {}
    for index, block in enumerate(model.model.diffusion_model.transformer_blocks):
        rows, columns = block.attn.to_q.weight.shape
        name = f"transformer.transformer_blocks.{index}.attn.to_q"
        lora[f"{name}.lora_A.weight"] = torch.randn(4, columns, generator=generator) / columns**0.5
        lora[f"{name}.lora_B.weight"] = torch.randn(rows, 4, generator=generator)
    return comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0.0, metadata)[0]


def seconds_per_step(steps: int, sample) -> float:
    started = time.perf_counter()
    sample()
    return (time.perf_counter() - started) / steps


def main() -> None:
    model, clip, vae = run("MRTModelLoader", "mrt-tiny (bundled)", "fp32")
    pipeline = Pipeline.load()

    def encoded(number: int):
        """Case `number` with the prompt of its request."""
        blank = run("CLIPTextEncode", clip, "")[0]
        prompt = next(islice(cases(vae, blank, blank), number, None))[0].prompt
        positive = run("CLIPTextEncode", clip, prompt)[0]
        return next(islice(cases(vae, positive, blank), number, None))

    with torch.inference_mode():
        if TIMING:
            report = measure_overhead(pipeline, model, *encoded(0))
        else:
            names = ("text", "image", "add", "restyle")
            report = {name: compare(pipeline, model, vae, *encoded(number)) for number, name in enumerate(names)}
    REPORT.write_text(json.dumps(report, indent=1))


def measure_overhead(pipeline: Pipeline, model, request, outputs, steps: int = 24, rounds: int = 5) -> dict:
    """Seconds per step of the sampler node and of the library, taken in turns: the fastest round of each counts."""
    positive, negative, latent = outputs
    options = SamplingOptions(seeds=(SEED,), steps=steps, cfg=1.0, shift=1.0)

    def node():
        run("MRTMaskedRegionSampler", model, positive, negative, latent, SEED, steps, 1.0, 1.0)

    def alone():
        pipeline.sample(pipeline.prepare(request, options))

    times = [(seconds_per_step(steps, node), seconds_per_step(steps, alone)) for _ in range(rounds)]
    through, library = (min(column) for column in zip(*times, strict=True))
    return {"node": through, "library": library, "ratio": through / library}


if __name__ == "__main__":
    main()
