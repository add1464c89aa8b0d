"""What a checkpoint says about itself: architecture, tasks, how it was trained, how to sample; JSON under the key `mrt`.

The JSON is untrusted input. Unknown settings are refused, since they would change what the weights mean.
"""

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from itertools import pairwise
from typing import Any, TypeVar

from ..errors import MRTError
from ..geometry import TOKEN_PX
from ..models.configs import AutoencoderConfig, TextConfig, TransformerConfig
from ..models.modes import REGION_MODES, Arrangement, Task

VERSION = 2
READ_VERSIONS = (1, 2)  # of 1, those that bring no text encoder: it was another one then
LARGEST_NUMBER = 2**24  # of any count, size or area: far above real ones, far below an overflow
SOLVERS = ("euler", "renoise")
CLEAN_TIMESTEPS = ("zero", "shared")
UPDATE = "update this package, or use the file that belongs to it"

Section = TypeVar("Section")


def _require(condition: bool, name: str, value: Any, rule: str) -> None:
    if not condition:
        shown = repr(value)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        raise MRTError(f"the checkpoint's setting {name} is {shown}, but it must be {rule}; {UPDATE}")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e300  # neither infinite nor not a number


@dataclass(frozen=True)
class Sampling:
    """How a checkpoint is meant to be sampled.

    The schedule is `sigmas` (steps + 1 falling noise levels, the last 0), or a static `shift`; with neither, the shift is
    sqrt(canvas tokens / 256), Qwen-Image-Layered's rule (architecture: sampling). A student has `cfg` 1. Raises
    MRTError.
    """

    steps: int = 50
    cfg: float = 4.0
    shift: float | None = None
    sigmas: tuple[float, ...] | None = None
    solver: str = "euler"

    def __post_init__(self):
        _require(type(self.steps) is int and 1 <= self.steps <= 1000, "steps", self.steps, "a whole number in 1..1000")
        _require(_is_number(self.cfg) and self.cfg >= 1, "cfg", self.cfg, "a number of at least 1")
        shift_is_valid = self.shift is None or (_is_number(self.shift) and self.shift > 0)
        _require(shift_is_valid, "shift", self.shift, "a positive number or null")
        _require(self.solver in SOLVERS, "solver", self.solver, f"one of {', '.join(SOLVERS)}")
        if self.sigmas is not None:
            _require(self.shift is None, "shift", self.shift, "absent where sigmas are given")
            falling = _falls_to_zero(self.sigmas) and len(self.sigmas) == self.steps + 1
            _require(falling, "sigmas", self.sigmas, "steps + 1 falling numbers from at most 1 to 0")


def _falls_to_zero(sigmas: tuple[float, ...]) -> bool:
    if not all(_is_number(sigma) for sigma in sigmas) or not sigmas or sigmas[0] > 1 or sigmas[-1] != 0:
        return False
    return all(first > second for first, second in pairwise(sigmas))


@dataclass(frozen=True)
class CheckpointInfo:
    """Everything about a checkpoint but its weights.

    `autoencoder` describes the latent space that the transformer was trained in, whether its weights are in the file or
    not; `text_encoder` is None unless they are. `frame_area` is in px. Raises MRTError for values out of range.
    """

    transformer: TransformerConfig
    autoencoder: AutoencoderConfig
    text_encoder: TextConfig | None = None
    student: bool = False
    tasks: tuple[Task, ...] = tuple(Task)
    grid: int = TOKEN_PX
    frame_area: int = 1024 * 1024
    region_mode: str = "crop"
    arrangement: Arrangement = Arrangement.MRT
    sampling: Sampling = Sampling()
    image_sampling: Sampling | None = None  # of image_to_layers, where it differs: a picture leaves less to be found

    def sampling_for(self, task: Task) -> Sampling:
        """How one task is meant to be sampled."""
        return self.image_sampling if self.image_sampling and task is Task.IMAGE_TO_LAYERS else self.sampling

    def __post_init__(self):
        config, text = self.transformer, self.text_encoder
        axes = config.rope_axes
        clean = config.clean_timestep
        _require(clean in CLEAN_TIMESTEPS, "clean_timestep", clean, f"one of {', '.join(CLEAN_TIMESTEPS)}")
        axes_fit = sum(axes) == config.head_dim and all(axis > 0 and axis % 2 == 0 for axis in axes)
        _require(axes_fit, "rope_axes", axes, f"even and add up to head_dim, {config.head_dim}")
        _require(config.width <= LARGEST_NUMBER, "width", config.width, f"at most {LARGEST_NUMBER}")
        width_fits = text is None or text.width == config.text_dim
        _require(
            width_fits, "text_encoder.width", text and text.width, f"the transformer's text_dim, {config.text_dim}"
        )
        channels = self.autoencoder.in_channels, self.autoencoder.out_channels
        _require(set(channels) <= {3, 4}, "image channels", channels, "3 or 4 each")
        deviations = self.autoencoder.latent_std
        _require(all(deviation > 0 for deviation in deviations), "latent_std", deviations, "positive")
        _require(self.grid == TOKEN_PX, "grid", self.grid, f"{TOKEN_PX} px")
        area_fits = type(self.frame_area) is int and TOKEN_PX**2 <= self.frame_area <= LARGEST_NUMBER
        _require(area_fits, "frame_area", self.frame_area, f"a whole number of px in {TOKEN_PX**2}..{LARGEST_NUMBER}")
        mode = self.region_mode
        _require(mode in REGION_MODES, "region_mode", mode, f"one of {', '.join(REGION_MODES)}")
        student_fits = not self.student or self.sampling.cfg == 1
        _require(student_fits, "cfg", self.sampling.cfg, "1, since a student has its guidance built in")

    @property
    def image_channels(self) -> int:
        return self.autoencoder.in_channels

    def to_json(self) -> str:
        return json.dumps({"version": VERSION, **asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> "CheckpointInfo":
        """Parse and validate what `to_json` wrote; raises MRTError with the setting, its value and the rule."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise MRTError("the checkpoint's metadata `mrt` is not JSON; download the file again") from error
        _require(isinstance(values, dict), "mrt", values, "a JSON object")
        version = values.pop("version", None)
        _require(version in READ_VERSIONS, "version", version, f"one of {', '.join(map(str, READ_VERSIONS))}")
        if version == 1 and values.get("text_encoder") is not None:
            raise MRTError(
                "the checkpoint was trained with the text encoder of an earlier version of this package, which is read no "
                "more; use the mrt-tiny that comes with this version, or train anew with `mrt train`"
            )
        for name in ("transformer", "autoencoder"):
            _require(name in values, name, None, "there with its sizes")
        sections = {"transformer": TransformerConfig, "autoencoder": AutoencoderConfig, "sampling": Sampling}
        optional = {"text_encoder": TextConfig, "image_sampling": Sampling}
        sections |= {name: section for name, section in optional.items() if values.get(name) is not None}
        for name, section in sections.items():
            if name in values:
                values[name] = _read_section(section, values[name], f"{name}.")
        if "tasks" in values:
            values["tasks"] = _read_tasks(values["tasks"])
        if "arrangement" in values:
            known = tuple(Arrangement)
            _require(values["arrangement"] in known, "arrangement", values["arrangement"], f"one of {', '.join(known)}")
            values["arrangement"] = Arrangement(values["arrangement"])
        return _read_fields(cls, values, "")


def _read_tasks(value: Any) -> tuple[Task, ...]:
    known = set(Task)
    valid = isinstance(value, list) and all(isinstance(name, str) and name in known for name in value)
    _require(valid, "tasks", value, f"a list of names among {', '.join(Task)}")
    return tuple(Task(name) for name in value)


def read_sampling(values: Any) -> Sampling:
    """A Sampling from JSON values; raises MRTError with the setting, its value and the rule."""
    return _read_section(Sampling, values, "sampling.")


def _read_section(section: type[Section], values: Any, where: str) -> Section:
    _require(isinstance(values, dict), where.rstrip("."), values, "a JSON object")
    if section is Sampling and isinstance(values.get("sigmas"), list):
        values = values | {"sigmas": tuple(values["sigmas"])}
    return _read_fields(section, values, where)


def _read_fields(section: type[Section], values: Mapping[str, Any], where: str) -> Section:
    """A config dataclass from JSON values, each of the type of the field's default."""
    defaults = {field.name: field.default for field in fields(section)}
    read = {}
    for name, value in values.items():
        _require(name in defaults, where + name, value, "absent, since this version does not know it")
        default = defaults[name]
        if isinstance(default, tuple) and isinstance(value, list):
            value = tuple(value)
        if default is not None and default is not MISSING:
            _require(_has_type_of(default, value), where + name, value, f"like {default!r}")
        read[name] = value
    return section(**read)


def _has_type_of(default: Any, value: Any) -> bool:
    if isinstance(default, tuple) and default and not isinstance(default[0], str):
        return (
            isinstance(value, tuple)
            and len(value) == len(default)
            and all(_has_type_of(*pair) for pair in zip(default, value, strict=True))
        )
    if type(default) is float:
        return _is_number(value)
    if type(default) is int:
        return type(value) is int and 1 <= value <= LARGEST_NUMBER
    return isinstance(value, type(default))
