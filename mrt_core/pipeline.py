"""The friendly face: a layout in, layer stacks out, in all four tasks.

pipeline = Pipeline.load()
stack, = pipeline.text_to_layers(layout)
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .checkpoints.bundled import find_checkpoint
from .checkpoints.checkpoint import Checkpoint, Sampling, load_checkpoint
from .checkpoints.components import find_autoencoder, find_text_encoder
from .errors import MRTError
from .layouts.layout import Layout, Region
from .models.modulation import ModulationTable, modulation_table
from .models.sequence import PackedBatch, SampleLayout, pack_samples, patchify, split_slots
from .models.text import TextEncoder
from .models.transformer import Block
from .offload.placement import UNLIMITED, Placement, free_memory
from .offload.plan import MemoryPlan, measure_weights, plan_memory, workload
from .sampling.samplers import Denoiser, Progress, SeededNoise, euler, guided, renoise
from .sampling.schedule import shifted_sigmas, teacher_sigmas
from .stacks.layers import LayerStack
from .tasks.region_codec import RegionCodec
from .tasks.request import (
    Request,
    adapted,
    add_layers_request,
    assemble,
    decode_layers,
    encode_clean_slots,
    image_to_layers_request,
    matched,
    restyle_layers_request,
    slot_latent_shape,
    text_to_layers_request,
)
from .tasks.slots import EMPTY_PROMPT

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SamplingOptions:
    """How to sample; None takes the checkpoint's own setting. One stack is made per seed, all in one call.

    `renormalise`: guided predictions keep the length that they have without guidance. `frame_area`: px to sample at.
    `match_image`: layers taken from an image get its outlines and colours, so that together they show it (see `refinement`).
    `progress(step, steps, x0)` is called after every step; an exception that it raises stops the sampling.
    """

    seeds: tuple[int, ...] = (0,)
    steps: int | None = None
    cfg: float | None = None
    shift: float | None = None
    negative: str = EMPTY_PROMPT
    renormalise: bool = True
    frame_area: int | None = None
    match_image: bool = True
    progress: Progress | None = None


class Pipeline:
    """A checkpoint with its text encoder and autoencoder, ready to make layers. Not thread-safe.

    The models work on the device of `placement`; without one, where the transformer is.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        text_encoder: TextEncoder,
        codec: RegionCodec,
        placement: Placement | None = None,
    ):
        self.transformer, self.info = checkpoint.transformer, checkpoint.info
        self.text_encoder, self.codec = text_encoder, codec
        self.placement = placement or Placement(self.transformer.img_in.weight.device)

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        region_mode: str | None = None,
        memory: int | None = None,
        autoencoder: str | Path | None = None,
        text_encoder: str | Path | None = None,
        tokenizer: str | Path | None = None,
    ) -> "Pipeline":
        """Load a checkpoint, from its path or by the name of a bundled one; None: mrt-tiny.

        A text encoder and an autoencoder that it does not bundle, or that are to replace the bundled ones, are read from
        paths of their own (see `components`). At most `memory` bytes of the device are used; None: what is free there now.
        """
        path = find_checkpoint(path)
        checkpoint = load_checkpoint(path, "cpu", dtype)
        decoder = find_autoencoder(checkpoint, path, autoencoder, dtype)
        reader = find_text_encoder(checkpoint, path, text_encoder, tokenizer, dtype)
        codec = RegionCodec(decoder, region_mode or checkpoint.info.region_mode)
        home = torch.device(device)
        placement = Placement(home, free_memory(home) if memory is None else memory)
        return cls(checkpoint, reader, codec, placement)

    def text_to_layers(
        self, layout: Layout, prompt: str | None = None, options: SamplingOptions = SamplingOptions()
    ) -> list[LayerStack]:
        """Make every layer of `layout` and its background from text; the default prompt has all its captions."""
        return self.run(text_to_layers_request(layout, prompt), options)

    def image_to_layers(
        self, image: np.ndarray, layout: Layout, prompt: str | None = None, options: SamplingOptions = SamplingOptions()
    ) -> list[LayerStack]:
        """Take an image (height, width, 3 or 4) uint8 of the frame's size apart into the layers of `layout`."""
        return self.run(image_to_layers_request(image, layout, prompt, self.info.arrangement), options)

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
        return self.run(add_layers_request(stack, additions, prompt), options)

    def restyle_layers(
        self,
        stack: LayerStack,
        assets: Mapping[int, np.ndarray],
        prompt: str | None = None,
        options: SamplingOptions = SamplingOptions(),
    ) -> list[LayerStack]:
        """Redraw foreground layers in the stack's style; `assets` maps a layer's place (0: lowest) to the RGBA image
        (height, width, 4) uint8, of that layer's size, that is to be restyled. The other layers come back untouched."""
        return self.run(restyle_layers_request(stack, assets, prompt), options)

    @torch.inference_mode()
    def run(self, request: Request, options: SamplingOptions = SamplingOptions()) -> list[LayerStack]:
        """Sample a request once per seed and decode the layers that it makes."""
        if request.task not in self.info.tasks:
            raise MRTError(
                f"the checkpoint was trained for {', '.join(self.info.tasks)} and not for {request.task}; use one that was"
            )
        small = adapted(request, self.info, options.frame_area)
        plan = self.plan(small, options)
        if self.placement.memory < UNLIMITED:
            log.info("%s", plan)
        packed = self.sample_latents(small, options)
        with self.placement.lend(plan, self.codec.autoencoder, plan.autoencoder_fits):
            made = [decode_layers(small, split_slots(tokens.float(), small.sample), self.codec) for tokens in packed]
        stacks = [assemble(request, layers, seed) for layers, seed in zip(made, options.seeds, strict=True)]
        return [matched(request, stack) for stack in stacks] if options.match_image else stacks

    def plan(self, request: Request, options: SamplingOptions) -> MemoryPlan:
        """What lies on the device in a run of `request`; raises MRTError where it takes more memory than there is."""
        sizes = measure_weights(self.transformer, self._text_model, self.codec.autoencoder)
        steps = len(noise_levels(request.sample, self.info.sampling_for(request.task), options)) - 1
        work = workload(self.info, request.sample, len(options.seeds), steps, self._dtype, self.codec.mode)
        return plan_memory(sizes, work, self.placement.memory)

    @property
    def _dtype(self) -> torch.dtype:
        """The precision of all that is computed; weights may be quantised, biases never are."""
        return self.transformer.img_in.bias.dtype

    @property
    def _text_model(self) -> nn.Module:
        return getattr(self.text_encoder, "model", self.text_encoder)

    def sample_latents(self, request: Request, options: SamplingOptions) -> list[Tensor]:
        """One packed sequence (N, 64) per seed: sampled tokens on noisy slots, exactly what went in on clean ones."""
        sample, count = request.sample, len(options.seeds)
        home, dtype = self.placement.device, self._dtype
        settings = self.info.sampling_for(request.task)
        cfg = options.cfg if options.cfg is not None else settings.cfg
        sigmas = noise_levels(sample, settings, options)
        plan = self.plan(request, options)
        self.placement.arrange(plan, [self.transformer, self._text_model, self.codec.autoencoder])
        with self.placement.lend(plan, self._text_model, plan.text_encoder_fits):
            batches = [
                self._batch(sample, [prompt] * count)
                for prompt in [request.prompt, *([options.negative] if cfg != 1 else [])]
            ]
        with self.placement.lend(plan, self.codec.autoencoder, plan.autoencoder_fits):
            latents = encode_clean_slots(request, self.codec)
        known = torch.cat([patchify(latent).to(home, dtype) for latent in latents])  # (N, 64)
        noise = self._packed_noise(SeededNoise(options.seeds), sample).to(known)
        tokens = known.repeat(count, 1)  # (count * N, 64)
        table = modulation_table(self.transformer, sigmas[:-1].tolist(), dtype, home)
        noisy = ~batches[0].clean
        with self.placement.blocks(plan, self.transformer) as blocks:
            denoise, *negative = (self._denoiser(tokens, batch, table, blocks) for batch in batches)
            if negative:
                denoise = guided(denoise, *negative, cfg, options.renormalise)
            if settings.solver == "renoise":
                source = SeededNoise([seed + 1 for seed in options.seeds])
                fresh = lambda: self._packed_noise(source, sample).to(tokens)[noisy]  # noqa: E731
                tokens[noisy] = renoise(denoise, noise[noisy], sigmas, fresh, options.progress)
            else:
                tokens[noisy] = euler(denoise, noise[noisy], sigmas, options.progress)
        return list(tokens.split(sample.token_count))

    @staticmethod
    def _packed_noise(source: SeededNoise, sample: SampleLayout) -> Tensor:
        """Noise (count * N, 64) for every token."""
        shapes = [slot_latent_shape(slot) for slot in sample.slots]
        return torch.cat([patchify(latent) for latents in source.draw(shapes) for latent in latents])

    def _batch(self, sample: SampleLayout, prompts: Sequence[str]) -> PackedBatch:
        home, dtype = self.placement.device, self._dtype
        states = [state.to(home, dtype) for state in self.text_encoder.encode_prompts(prompts)]
        return pack_samples([sample] * len(prompts), states, self.text_encoder.anchors(prompts))

    def _denoiser(
        self, tokens: Tensor, batch: PackedBatch, table: ModulationTable, blocks: Iterable[Block]
    ) -> Denoiser:
        """Velocity of the noisy tokens, with the clean ones of `tokens` (N, 64) in their places."""
        noisy = ~batch.clean

        def denoise(x: Tensor, sigma: float) -> Tensor:
            full = tokens.clone()
            full[noisy] = x
            timestep = torch.full((1,), sigma, device=x.device)
            return self.transformer(full, timestep, batch, modulations=table.at(sigma), blocks=blocks)[noisy]

        return denoise


def noise_levels(sample: SampleLayout, settings: Sampling, options: SamplingOptions) -> Tensor:
    """The schedule (steps + 1,) of a run: the user's steps and shift, else the checkpoint's, else the teacher's rule."""
    if settings.sigmas is not None and options.steps in (None, settings.steps) and options.shift is None:
        return torch.tensor(settings.sigmas)
    steps = settings.steps if options.steps is None else options.steps
    shift = settings.shift if options.shift is None else options.shift
    if shift is None:
        return teacher_sigmas(steps, sample.canvas_rows * sample.canvas_cols)
    return shifted_sigmas(steps, shift)
