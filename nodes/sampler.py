"""MRT Masked-Region Sampler."""

import comfy.k_diffusion.sampling
import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from comfy_api.latest import io
from torch import Tensor

from ..mrt_core.checkpoints.info import SOLVERS, Sampling
from ..mrt_core.errors import MRTError
from ..mrt_core.lora.student import sampling_from_json
from ..mrt_core.models.sequence import patchify, unpatchify
from ..mrt_core.sampling.samplers import renormalised
from ..mrt_core.tasks.job import Job
from ..mrt_core.tasks.options import SamplingOptions, noise_levels
from ..mrt_core.weights.keys import INFO_KEY
from .diffusion_model import MRTModel
from .region_latents import JOB, RUN

LORA_METADATA = "lora_metadata"  # where ComfyUI keeps it on a MODEL


class MaskedRegionSampler(io.ComfyNode):
    """Samples region latents as the checkpoint is meant to be sampled."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MRTMaskedRegionSampler",
            display_name="MRT Masked-Region Sampler",
            category="MRT",
            description="Makes the layers. Steps, guidance, schedule and solver come from the checkpoint, be it a teacher or "
            "a distilled student, unless they are set here.",
            search_aliases=["layer sampler", "region sampler"],
            inputs=[
                io.Model.Input("model", tooltip="From Load MRT Model, with LoRAs if you like; a student's comes last."),
                io.Conditioning.Input("positive", tooltip="From a Region Latents node."),
                io.Conditioning.Input(
                    "negative", tooltip="From a Region Latents node; it counts where cfg is above 1."
                ),
                io.Latent.Input("latent", tooltip="From a Region Latents node."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="The same seed makes the same layers.",
                ),
                io.Int.Input("steps", default=0, min=0, max=1000, tooltip="Sampling steps; 0: the checkpoint's own."),
                io.Float.Input(
                    "cfg", default=0.0, min=0.0, max=30.0, step=0.1, tooltip="Guidance scale; 0: the checkpoint's own."
                ),
                io.Float.Input(
                    "shift",
                    default=0.0,
                    min=0.0,
                    max=20.0,
                    step=0.05,
                    advanced=True,
                    tooltip="Above 1, more of the steps are spent at high noise; 0: the checkpoint's own.",
                ),
                io.Combo.Input(
                    "solver",
                    options=["auto", *SOLVERS],
                    default="auto",
                    advanced=True,
                    tooltip="euler for teachers, renoise for DMD students; auto: the checkpoint's own.",
                ),
                io.Boolean.Input(
                    "renormalise",
                    default=True,
                    advanced=True,
                    tooltip="Guided predictions keep the length that they have without guidance.",
                ),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="For RGBA Layer Splitter.")],
        )

    @classmethod
    def execute(
        cls, model, positive, negative, latent, seed, steps=0, cfg=0.0, shift=0.0, solver="auto", renormalise=True
    ) -> io.NodeOutput:
        job = region_job(latent)
        settings = _settings(model, job)
        options = SamplingOptions(steps=steps or None, shift=shift or None)
        sigmas = noise_levels(job.slot_layout, settings, options)
        scale = cfg or settings.cfg
        if renormalise and scale != 1:
            model = model.clone()
            model.set_model_sampler_cfg_function(_renormalised_guidance)
        samples = latent["samples"]
        noise = comfy.sample.prepare_noise(samples, seed, latent.get("batch_index"))
        sampler = _sampler(settings.solver if solver == "auto" else solver, samples, seed)
        made = comfy.sample.sample_custom(
            model,
            noise,
            scale,
            sampler,
            sigmas,
            positive,
            negative,
            samples,
            noise_mask=latent.get("noise_mask"),
            callback=latent_preview.prepare_callback(model, len(sigmas) - 1),
            disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
            seed=seed,
        )
        run = {"seed": seed, "steps": len(sigmas) - 1, "cfg": scale}
        return io.NodeOutput({**latent, "samples": made, RUN: run})


def region_job(latent: dict) -> Job:
    """The job that a LATENT belongs to; raises MRTError for a LATENT that no Region Latents node made."""
    if JOB not in latent:
        raise MRTError(
            "the latent carries no layout, but layers are made of a layout; connect the latent output of one of the Region "
            "Latents nodes"
        )
    return latent[JOB]


def _settings(model, job: Job) -> Sampling:
    """How the model's checkpoint is meant to be sampled for this task."""
    if not isinstance(model.model, MRTModel):
        raise MRTError(
            f"the model is a {type(model.model).__name__}, but a Masked Region Transformer is needed; use Load MRT Model"
        )
    info, task = model.model.mrt_info, job.asked.task
    if task not in info.tasks:
        raise MRTError(
            f"the checkpoint was trained for {', '.join(info.tasks) or 'none of the tasks'} and not for {task}; use one that was"
        )
    if job.sampled.arrangement is not info.arrangement:
        raise MRTError(
            f"the latent was laid out for another kind of model, {job.sampled.arrangement} and not {info.arrangement}; connect "
            "the sampler's model to the model input of the Region Latents node too"
        )
    return _student_sampling(model) or info.sampling_for(task)


def _student_sampling(model) -> Sampling | None:
    """How the student whose LoRA is on the model is sampled; of several LoRAs, ComfyUI keeps the last one's metadata."""
    metadata = model.get_attachment(LORA_METADATA) or {}
    return sampling_from_json(metadata[INFO_KEY]) if INFO_KEY in metadata else None


def _sampler(solver: str, samples, seed: int) -> comfy.samplers.KSAMPLER:
    if solver == "euler":
        return comfy.samplers.sampler_object("euler")
    generator = torch.Generator("cpu").manual_seed((seed + 1) % 2**64)

    def fresh_noise(sigma, following) -> Tensor:
        drawn = [torch.randn(stream.shape, generator=generator) for stream in samples.unbind()]
        return comfy.utils.pack_latents(drawn)[0].to(sigma)

    # predict x0, then noise it anew: what the library calls "renoise", ComfyUI calls LCM
    return comfy.samplers.KSAMPLER(comfy.k_diffusion.sampling.sample_lcm, {"noise_sampler": fresh_noise})


def _renormalised_guidance(args: dict) -> Tensor:
    """Guidance under which each token keeps the norm of its conditional prediction (ComfyUI's cfg function)."""
    positive, negative = args["cond"], args["uncond"]  # (B, 1, all values)
    guided = negative.lerp(positive, args["cond_scale"])
    shapes = args["model"].latent_shapes
    streams = zip(comfy.utils.unpack_latents(guided, shapes), comfy.utils.unpack_latents(positive, shapes), strict=True)
    kept = []
    for stream, like in streams:  # (B, 16, 1, h, w)
        rows, cols = stream.shape[-2] // 2, stream.shape[-1] // 2
        tokens = renormalised(patchify(stream[:, :, 0]), patchify(like[:, :, 0]))
        kept.append(unpatchify(tokens, rows, cols).unsqueeze(2))
    return comfy.utils.pack_latents(kept)[0]
