"""Text states of training prompts, computed once by a text encoder that is too large to be beside the model in training.

Beside each shard of samples lies one file of states: `states` (M, width) of all its prompts one after another, their
`lengths` (P,), and the prompts as JSON in the metadata, the empty prompt among them.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from ..errors import MRTError
from ..models.text import TextEncoder
from ..tasks.slots import EMPTY_PROMPT
from ..weights.safetensors_file import save_atomically
from ..weights.safetensors_header import read_header

log = logging.getLogger(__name__)

SAMPLES, STATES = "samples-", "prompts-"  # how the names of both files begin
PROMPTS_KEY = "prompts"  # of the metadata of both


def write_text_states(folder: Path, encoder: TextEncoder) -> None:
    """Write the states of the prompts of every shard in `folder`; files that have them all are kept."""
    shards = sorted(folder.glob(f"{SAMPLES}*.safetensors"))
    if not shards:
        raise MRTError(f"{folder} holds no shards of samples, whose prompts are needed; run `mrt train samples` first")
    for shard in shards:
        path = shard.with_name(STATES + shard.name.removeprefix(SAMPLES))
        entries = json.loads(read_header(shard).metadata[PROMPTS_KEY])
        prompts = list(dict.fromkeys([EMPTY_PROMPT, *(prompt for entry in entries for prompt in entry["prompts"])]))
        if path.exists() and json.loads(read_header(path).metadata[PROMPTS_KEY]) == prompts:
            continue
        states = [encoder.encode_prompts([prompt])[0].to("cpu", torch.bfloat16) for prompt in prompts]
        tensors = {"states": torch.cat(states), "lengths": torch.tensor([len(rows) for rows in states])}
        save_atomically(tensors, path, {PROMPTS_KEY: json.dumps(prompts)})
        log.info("wrote %s", path)


class CachedText:
    """A text encoder that looks its states up in the files of a folder, of which it reads no more than it is asked for.

    `width` is what the transformer takes. Raises MRTError for states of another width.
    """

    def __init__(self, folder: Path, width: int):
        self.folder, self.width = folder, width
        self._places: dict[str, tuple[Path, int, int]] = {}  # file, first row, last row + 1
        self._read: set[Path] = set()

    def encode_prompts(self, prompts: Sequence[str]) -> list[Tensor]:
        """Text states, one (tokens, width) per prompt; raises MRTError for a prompt that has none."""
        return [self._states(prompt) for prompt in prompts]

    def anchors(self, prompts: Sequence[str]) -> None:
        """None: Qwen-Image's text stands apart from the layers."""

    def _states(self, prompt: str) -> Tensor:
        if prompt not in self._places:
            self._look()
        if prompt not in self._places:
            raise MRTError(
                f"{self.folder} has no text states for the prompt {prompt[:60]!r}; run `mrt train prompts` after "
                "`mrt train samples`"
            )
        path, start, end = self._places[prompt]
        with safe_open(path, "pt") as file:
            return file.get_slice("states")[start:end]

    def _look(self) -> None:
        """Take note of the files that have come since."""
        for path in sorted(self.folder.glob(f"{STATES}*.safetensors")):
            if path in self._read:
                continue
            header = read_header(path)
            width = header.tensors["states"].shape[1]
            if width != self.width:
                raise MRTError(
                    f"{path} has text states {width} wide, but the checkpoint takes {self.width}; delete it and run "
                    "`mrt train prompts` with the text encoder that belongs to the checkpoint"
                )
            with safe_open(path, "pt") as file:
                ends = file.get_tensor("lengths").cumsum(0).tolist()
            places = zip([0, *ends[:-1]], ends, strict=True)
            prompts = json.loads(header.metadata[PROMPTS_KEY])
            self._places |= {prompt: (path, *place) for prompt, place in zip(prompts, places, strict=True)}
            self._read.add(path)
