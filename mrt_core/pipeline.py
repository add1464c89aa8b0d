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
from .checkpoints.checkpoint import Checkpoint, load_checkpoint
from .checkpoints.components import find_autoencoder, find_text_encoder
from .errors import MRTError
from .layouts.layout import Layout, Region
from .models.modulation import ModulationTable, modulation_table
from .models.sequence import PackedBatch, SlotLayout, pack_samples, patchify, slot_latent_shape, split_slots
from .models.text import TextEncoder
from .models.transformer import Block
from .offload.placement import UNLIMITED, Placement, free_memory
from .offload.plan import MemoryPlan, measure_weights, plan_memory, workload
from .sampling.samplers import Denoiser, SeededNoise, euler, guided, renoise
from .stacks.layers import LayerStack
from .tasks.job import Job, job_for
from .tasks.options import DEFAULTS, SamplingOptions, noise_levels
from .tasks.realise import assemble, decode_layers, encode_clean_slots, matched
from .tasks.region_codec import RegionCodec
from .tasks.request import (
    Request,
    add_layers_request,
    image_to_layers_request,
    restyle_layers_request,
    text_to_layers_request,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """A job prepared once for sampling: its noise levels (steps + 1,), guidance and solver, and what lies on the device."""

    job: Job
    options: SamplingOptions
    sigmas: Tensor
    cfg: float
    solver: str
    memory: MemoryPlan


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
        self, layout: Layout, prompt: str | None = None, options: SamplingOptions = DEFAULTS
    ) -> list[LayerStack]:
        """Make every layer of `layout` and its background from text; the default prompt has all its captions."""
        return self.run(text_to_layers_request(layout, prompt), options)

    def image_to_layers(
        self, image: np.ndarray, layout: Layout, prompt: str | None = None, options: SamplingOptions = DEFAULTS
    ) -> list[LayerStack]:
        """Take an image (height, width, 3 or 4) uint8 of the frame's size apart into the layers of `layout`."""
        return self.run(image_to_layers_request(image, layout, prompt, self.info.arrangement), options)

    def add_layers(
        self,
        stack: LayerStack,
        additions: Mapping[int, Region],
        prompt: str | None = None,
        options: SamplingOptions = DEFAULTS,
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
        options: SamplingOptions = DEFAULTS,
    ) -> list[LayerStack]:
        """Redraw foreground layers in the stack's style; `assets` maps a layer's place (0: lowest) to the RGBA image
        (height, width, 4) uint8, of that layer's size, that is to be restyled. The other layers come back untouched."""
        return self.run(restyle_layers_request(stack, assets, prompt), options)

    @torch.inference_mode()
    def run(self, request: Request, options: SamplingOptions = DEFAULTS) -> list[LayerStack]:
        """Sample a request once per seed and decode the layers that it makes."""
        run = self.prepare(request, options)
        return self.realise(run, self.sample(run))

    def prepare(self, request: Request, options: SamplingOptions = DEFAULTS) -> Run:
        """Work out everything about a run that does not take a model. Raises MRTError for a task that the checkpoint does not
        know, and where the run takes more memory than there is."""
        if request.task not in self.info.tasks:
            raise MRTError(
                f"the checkpoint was trained for {', '.join(self.info.tasks)} and not for {request.task}; use one that was"
            )
        job = job_for(request, self.info, options.frame_area)
        settings = self.info.sampling_for(request.task)
        sigmas = noise_levels(job.slot_layout, settings, options)
        cfg = settings.cfg if options.cfg is None else options.cfg
        sizes = measure_weights(self.transformer, self._text_model, self.codec.autoencoder)
        work = workload(self.info, job.slot_layout, len(options.seeds), len(sigmas) - 1, self._dtype, self.codec.mode)
        memory = plan_memory(sizes, work, self.placement.memory)
        if self.placement.memory < UNLIMITED:
            log.info("%s", memory)
        return Run(job, options, sigmas, cfg, settings.solver, memory)

    @torch.inference_mode()
    def sample(self, run: Run) -> list[Tensor]:
        """One packed sequence (N, 64) per seed: sampled tokens on noisy slots, exactly what went in on clean ones."""
        options, slots, count = run.options, run.job.slot_layout, len(run.options.seeds)
        home, dtype, plan = self.placement.device, self._dtype, run.memory
        self.placement.arrange(plan, [self.transformer, self._text_model, self.codec.autoencoder])
        prompts = [run.job.asked.prompt, *([options.negative] if run.cfg != 1 else [])]
        with self.placement.lend(plan, self._text_model, plan.text_encoder_fits):
            batches = [self._batch(slots, [prompt] * count) for prompt in prompts]
        with self.placement.lend(plan, self.codec.autoencoder, plan.autoencoder_fits):
            latents = encode_clean_slots(run.job, self.codec)
        known = torch.cat([patchify(latent).to(home, dtype) for latent in latents])  # (N, 64)
        noise = self._packed_noise(SeededNoise(options.seeds), slots).to(known)
        tokens = known.repeat(count, 1)  # (count * N, 64)
        table = modulation_table(self.transformer, run.sigmas[:-1].tolist(), dtype, home)
        noisy = ~batches[0].clean
        with self.placement.blocks(plan, self.transformer) as blocks:
            denoise, *negative = (self._denoiser(tokens, batch, table, blocks) for batch in batches)
            if negative:
                denoise = guided(denoise, *negative, run.cfg, options.renormalise)
            if run.solver == "renoise":
                source = SeededNoise([seed + 1 for seed in options.seeds])
                fresh = lambda: self._packed_noise(source, slots).to(tokens)[noisy]  # noqa: E731
                tokens[noisy] = renoise(denoise, noise[noisy], run.sigmas, fresh, options.progress)
            else:
                tokens[noisy] = euler(denoise, noise[noisy], run.sigmas, options.progress)
        return list(tokens.split(slots.token_count))

    @torch.inference_mode()
    def realise(self, run: Run, packed: Sequence[Tensor]) -> list[LayerStack]:
        """The layer stacks of packed sequences (N, 64), one per seed."""
        job, options, plan = run.job, run.options, run.memory
        with self.placement.lend(plan, self.codec.autoencoder, plan.autoencoder_fits):
            made = [decode_layers(job, split_slots(tokens.float(), job.slot_layout), self.codec) for tokens in packed]
        stacks = [assemble(job.asked, layers, seed) for layers, seed in zip(made, options.seeds, strict=True)]
        return [matched(job.asked, stack, options.box_slack) for stack in stacks] if options.match_image else stacks

    @property
    def _dtype(self) -> torch.dtype:
        """The precision of all that is computed; weights may be quantised, biases never are."""
        return self.transformer.img_in.bias.dtype

    @property
    def _text_model(self) -> nn.Module:
        return getattr(self.text_encoder, "model", self.text_encoder)

    @staticmethod
    def _packed_noise(source: SeededNoise, layout: SlotLayout) -> Tensor:
        """Noise (count * N, 64) for every token."""
        shapes = [slot_latent_shape(slot) for slot in layout.slots]
        return torch.cat([patchify(latent) for latents in source.draw(shapes) for latent in latents])

    def _batch(self, layout: SlotLayout, prompts: Sequence[str]) -> PackedBatch:
        home, dtype = self.placement.device, self._dtype
        states = [state.to(home, dtype) for state in self.text_encoder.encode_prompts(prompts)]
        return pack_samples([layout] * len(prompts), states, self.text_encoder.anchors(prompts))

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
