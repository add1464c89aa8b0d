"""The friendly face: a layout in, layer stacks out, in all four tasks.

pipeline = Pipeline.load()
stack, = pipeline.text_to_layers(layout)
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .checkpoint import Checkpoint, Sampling, bundled_checkpoint, load_checkpoint
from .errors import MRTError
from .geometry import Box, frame_box, token_box_pixels
from .layers import Layer, LayerStack
from .layout import Layout, Region
from .regions import RegionCodec, places, slot_pixels
from .sampling import Denoiser, Progress, SeededNoise, euler, guided, renoise
from .scaling import enlarge, scale_assets, scale_layout, scale_stack, working_frame
from .schedule import shifted_sigmas, teacher_sigmas
from .sequence import PackedBatch, Role, SampleLayout, Slot, pack_samples, patchify, split_slots
from .tasks import EMPTY_PROMPT, Task, default_prompt, plan
from .text import TextEncoder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SamplingOptions:
    """How to sample; None takes the checkpoint's own setting. One stack is made per seed, all in one call.

    `progress(step, steps, x0)` is called after every step; an exception that it raises stops the sampling.
    """

    seeds: tuple[int, ...] = (0,)
    steps: int | None = None
    cfg: float | None = None
    shift: float | None = None
    negative: str = EMPTY_PROMPT
    progress: Progress | None = None


@dataclass(frozen=True)
class Request:
    """One task on one layout: which slots there are, what the clean ones show, and the prompt.

    Raises MRTError for targets that the layout does not have.
    """

    task: Task
    layout: Layout
    stack: LayerStack  # what is known: background and layers in the layout's order (targets may be blank)
    prompt: str
    targets: tuple[int, ...] = ()
    assets: Mapping[int, np.ndarray] = field(default_factory=dict)

    def __post_init__(self):
        plan(self.task, self.layout, self.targets)

    @property
    def sample(self) -> SampleLayout:
        return plan(self.task, self.layout, self.targets)

    def clean_pixels(self) -> dict[int, np.ndarray]:
        """For each clean slot's number, what it shows."""
        slots = enumerate(self.sample.slots)
        return {
            number: slot_pixels(slot, self.layout, self.stack, self.targets, dict(self.assets))
            for number, slot in slots
            if slot.clean
        }


class Pipeline:
    """A checkpoint with its text encoder and autoencoder, ready to make layers. Not thread-safe."""

    def __init__(self, checkpoint: Checkpoint, text_encoder: TextEncoder, codec: RegionCodec):
        self.transformer, self.info = checkpoint.transformer, checkpoint.info
        self.text_encoder, self.codec = text_encoder, codec

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        region_mode: str | None = None,
    ) -> "Pipeline":
        """Load a checkpoint that bundles its text encoder and autoencoder; None: the one that comes with the package."""
        path = Path(path) if path else bundled_checkpoint()
        checkpoint = load_checkpoint(path, device, dtype)
        if checkpoint.text_encoder is None or checkpoint.autoencoder is None:
            raise MRTError(
                f"{path.name} holds a transformer alone, but this command needs its text encoder and autoencoder in the same "
                "file; use a bundled checkpoint such as mrt-tiny"
            )
        codec = RegionCodec(checkpoint.autoencoder, region_mode or checkpoint.info.region_mode)
        return cls(checkpoint, checkpoint.text_encoder, codec)

    def text_to_layers(
        self, layout: Layout, prompt: str | None = None, options: SamplingOptions = SamplingOptions()
    ) -> list[LayerStack]:
        """Make every layer of `layout` and its background from text; the default prompt is the layout's caption."""
        prompt = default_prompt(Task.TEXT_TO_LAYERS, layout) if prompt is None else prompt
        return self.run(Request(Task.TEXT_TO_LAYERS, layout, LayerStack(layout.frame, ()), prompt), options)

    def image_to_layers(
        self, image: np.ndarray, layout: Layout, prompt: str | None = None, options: SamplingOptions = SamplingOptions()
    ) -> list[LayerStack]:
        """Take an image (height, width, 3 or 4) uint8 of the frame's size apart into the layers of `layout`."""
        height, width = image.shape[:2]
        if (width, height) != tuple(layout.frame):
            raise MRTError(
                f"the image is {width} x {height} px, but the layout's frame is {layout.frame.width} x {layout.frame.height} px; "
                "give both the same size"
            )
        opaque = np.full((height, width, 1), 255, np.uint8)
        pixels = image if image.shape[2] == 4 else np.concatenate([image, opaque], axis=2)
        stack = LayerStack(layout.frame, (Layer(pixels, 0, 0, "Image"),))
        prompt = default_prompt(Task.IMAGE_TO_LAYERS, layout) if prompt is None else prompt
        return self.run(Request(Task.IMAGE_TO_LAYERS, layout, stack, prompt), options)

    def add_layers(
        self,
        stack: LayerStack,
        additions: Mapping[int, Region],
        prompt: str | None = None,
        options: SamplingOptions = SamplingOptions(),
    ) -> list[LayerStack]:
        """Add layers to a stack; `additions` maps the place among the final foreground layers (0: lowest) to a region.

        The layers that were there come back untouched.
        """
        base = with_background(stack)
        known, layout = insert_regions(base, additions)
        targets = tuple(sorted(additions))
        prompt = default_prompt(Task.ADD_LAYERS, layout, targets) if prompt is None else prompt
        return self.run(Request(Task.ADD_LAYERS, layout, known, prompt, targets), options)

    def restyle_layers(
        self,
        stack: LayerStack,
        assets: Mapping[int, np.ndarray],
        prompt: str | None = None,
        options: SamplingOptions = SamplingOptions(),
    ) -> list[LayerStack]:
        """Redraw foreground layers in the stack's style; `assets` maps a layer's place (0: lowest) to the RGBA image
        (height, width, 4) uint8, of that layer's size, that is to be restyled. The other layers come back untouched."""
        base = with_background(stack)
        layout = layout_of(base)
        for index, pixels in assets.items():
            if 0 <= index < len(layout.regions) and pixels.shape != base.layers[1 + index].pixels.shape:
                raise MRTError(
                    f"the asset for layer {index} is {pixels.shape[1]} x {pixels.shape[0]} px, but that layer's box is "
                    f"{layout.regions[index].box.width} x {layout.regions[index].box.height} px; scale the asset to the box"
                )
        targets = tuple(sorted(assets))
        prompt = default_prompt(Task.RESTYLE_LAYERS, layout) if prompt is None else prompt
        return self.run(Request(Task.RESTYLE_LAYERS, layout, base, prompt, targets, assets), options)

    @torch.inference_mode()
    def run(self, request: Request, options: SamplingOptions = SamplingOptions()) -> list[LayerStack]:
        """Sample a request once per seed and decode the layers that it makes."""
        if request.task not in self.info.tasks:
            raise MRTError(
                f"the checkpoint was trained for {', '.join(self.info.tasks)} and not for {request.task}; use one that was"
            )
        small = self._at_working_size(request)
        packed = self.sample_latents(small, options)
        made = [self._decode(small, tokens) for tokens in packed]
        return [_assemble(request, layers, seed) for layers, seed in zip(made, options.seeds, strict=True)]

    def _at_working_size(self, request: Request) -> Request:
        """The request, scaled down where its frame is much larger than what the checkpoint was trained at."""
        frame = working_frame(request.layout.frame, self.info.frame_area)
        if frame == request.layout.frame:
            return request
        log.info("sampling at %d x %d px, the size that the checkpoint knows", *frame)
        layout = scale_layout(request.layout, frame)
        stack = scale_stack(request.stack, frame)
        return replace(request, layout=layout, stack=stack, assets=scale_assets(request.assets, layout))

    def sample_latents(self, request: Request, options: SamplingOptions) -> list[Tensor]:
        """One packed sequence (N, 64) per seed: sampled tokens on noisy slots, exactly what went in on clean ones."""
        sample, count = request.sample, len(options.seeds)
        known = self._clean_tokens(request)  # (N, 64)
        noise = self._packed_noise(SeededNoise(options.seeds), sample).to(known)
        batch = self._batch(sample, [request.prompt] * count)
        tokens = known.repeat(count, 1)  # (count * N, 64)
        settings = self.info.sampling_for(request.task)
        cfg = options.cfg if options.cfg is not None else settings.cfg
        denoise = self._denoiser(tokens, batch)
        if cfg != 1:
            negative = self._batch(sample, [options.negative] * count)
            denoise = guided(denoise, self._denoiser(tokens, negative), cfg)
        sigmas = noise_levels(sample, settings, options)
        noisy = ~batch.clean
        if settings.solver == "renoise":
            source = SeededNoise([seed + 1 for seed in options.seeds])
            fresh = lambda: self._packed_noise(source, sample).to(tokens)[noisy]  # noqa: E731
            tokens[noisy] = renoise(denoise, noise[noisy], sigmas, fresh, options.progress)
        else:
            tokens[noisy] = euler(denoise, noise[noisy], sigmas, options.progress)
        return list(tokens.split(sample.token_count))

    def _clean_tokens(self, request: Request) -> Tensor:
        """Packed tokens (N, 64) with the clean slots filled in and zeros elsewhere."""
        sample, pixels = request.sample, request.clean_pixels()
        slots = [sample.slots[number] for number in pixels]
        latents = dict(zip(pixels, self.codec.encode(list(pixels.values()), places(sample, slots)), strict=True))
        weight = self.transformer.img_in.weight
        blank = [torch.zeros(slot.box.count, self.transformer.config.in_channels) for slot in sample.slots]
        parts = [patchify(latents[number]) if number in latents else part for number, part in enumerate(blank)]
        return torch.cat([part.to(weight) for part in parts])

    @staticmethod
    def _packed_noise(source: SeededNoise, sample: SampleLayout) -> Tensor:
        """Noise (count * N, 64) for every token."""
        shapes = [(16, 2 * slot.box.rows, 2 * slot.box.cols) for slot in sample.slots]
        return torch.cat([patchify(latent) for latents in source.draw(shapes) for latent in latents])

    def _batch(self, sample: SampleLayout, prompts: Sequence[str]) -> PackedBatch:
        weight = self.transformer.img_in.weight
        states = [state.to(weight) for state in self.text_encoder.encode_prompts(prompts)]
        return pack_samples([sample] * len(prompts), states)

    def _denoiser(self, tokens: Tensor, batch: PackedBatch) -> Denoiser:
        """Velocity of the noisy tokens, with the clean ones of `tokens` (N, 64) in their places."""
        noisy = ~batch.clean

        def denoise(x: Tensor, sigma: float) -> Tensor:
            full = tokens.clone()
            full[noisy] = x
            timestep = torch.full((len(batch.lengths),), sigma, device=x.device)
            return self.transformer(full, timestep, batch)[noisy]

        return denoise

    def _decode(self, request: Request, tokens: Tensor) -> dict[int, Layer]:
        """The layers that were made, decoded and cropped to their boxes, by their place in the stack."""
        sample, layout = request.sample, request.layout
        latents = split_slots(tokens.float(), sample)
        made = [n for n, slot in enumerate(sample.slots) if not slot.clean and slot.role is not Role.COMPOSITE]
        slots = [sample.slots[n] for n in made]
        images = self.codec.decode([latents[n] for n in made], places(sample, slots))
        regions = [layout.background_region, *layout.regions]
        return {
            slot.layer_index - 1: _cut_out(image, slot, layout, regions[slot.layer_index - 1])
            for slot, image in zip(slots, images, strict=True)
        }


def noise_levels(sample: SampleLayout, settings: Sampling, options: SamplingOptions) -> Tensor:
    """The schedule (steps + 1,) of a run: the user's steps and shift, else the checkpoint's, else the teacher's rule."""
    if settings.sigmas is not None and options.steps in (None, settings.steps) and options.shift is None:
        return torch.tensor(settings.sigmas)
    steps = settings.steps if options.steps is None else options.steps
    shift = settings.shift if options.shift is None else options.shift
    if shift is None:
        return teacher_sigmas(steps, sample.canvas_rows * sample.canvas_cols)
    return shifted_sigmas(steps, shift)


def _assemble(request: Request, made: Mapping[int, Layer], seed: int) -> LayerStack:
    """The stack of a request: layers that were given as they were, layers that were made at the size of their boxes."""
    layers = dict(enumerate(request.stack.layers)) if request.targets else {}
    regions = [request.layout.background_region, *request.layout.regions]
    for index, layer in made.items():
        box = whole_pixels(regions[index].box)
        layers[index] = layer if layer.box == box else enlarge(layer, box)
    metadata = {"task": str(request.task), "prompt": request.prompt, "seed": seed}
    return LayerStack(request.layout.frame, tuple(layers[index] for index in range(len(regions))), metadata)


def whole_pixels(box: Box) -> Box:
    """`box` grown outward to whole pixels."""
    left, top = math.floor(box.x), math.floor(box.y)
    return Box(left, top, math.ceil(box.right) - left, math.ceil(box.bottom) - top)


def _cut_out(image: np.ndarray, slot: Slot, layout: Layout, region: Region) -> Layer:
    """A decoded slot (16 * rows, 16 * cols, 4) cropped from the token grid to its region's box."""
    area, box = token_box_pixels(slot.box, layout.canvas), whole_pixels(region.box)
    x, y = round(box.x - area.x), round(box.y - area.y)
    pixels = image[y : y + round(box.height), x : x + round(box.width)].copy()
    pixels[pixels[..., 3] == 0] = 0
    return Layer(pixels, round(box.x), round(box.y), region.name, region.caption)


def with_background(stack: LayerStack) -> LayerStack:
    """The stack without groups, with a background that covers the frame as its lowest layer; a transparent one is put
    in where the lowest layer does not cover it."""
    layers = tuple(stack.flat())
    frame = frame_box(stack.frame)
    if layers:
        box = layers[0].box
        if box.x <= 0 and box.y <= 0 and box.right >= frame.right and box.bottom >= frame.bottom:
            return replace(stack, layers=layers)
    blank = np.zeros((stack.frame.height, stack.frame.width, 4), np.uint8)
    return replace(stack, layers=(Layer(blank, 0, 0, "Background"), *layers))


def layout_of(stack: LayerStack) -> Layout:
    """The layout of a stack whose lowest layer is its background."""
    background, *layers = stack.layers
    regions = tuple(Region(layer.name, layer.box, layer.caption) for layer in layers)
    return Layout(stack.frame, regions, "", Region(background.name, background.box, background.caption))


def insert_regions(stack: LayerStack, additions: Mapping[int, Region]) -> tuple[LayerStack, Layout]:
    """A stack and its layout with blank layers for `additions` at their final places among the foreground layers."""
    layers = list(stack.layers[1:])
    final = len(layers) + len(additions)
    if not additions or not all(0 <= place < final for place in additions):
        raise MRTError(
            f"the new layers stand at {sorted(additions)}, but with them there are {final} layers, counted from 0 at the "
            "bottom; give at least one new layer a place among them"
        )
    for place in sorted(additions):
        region = additions[place]
        box = whole_pixels(region.box)
        blank = np.zeros((int(box.height), int(box.width), 4), np.uint8)
        layers.insert(place, Layer(blank, int(box.x), int(box.y), region.name, region.caption))
    known = replace(stack, layers=(stack.layers[0], *layers))
    return known, layout_of(known)
