"""Training sharded over two processes with FSDP2, on the CPU with gloo; the checks stand in `fsdp_worker.py`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_teacher import make_teacher

from mrt_core.designs.generator import DesignSettings, generate_design
from mrt_core.tasks.region_codec import RegionCodec
from mrt_core.tasks.slots import Task, slot_layout
from mrt_core.training.muon import muon_for
from mrt_core.training.samples import Example, write_shard
from mrt_core.training.state import TrainingState, averaged_weights
from mrt_core.training.teacher import _hidden_matrices

WORKER = Path(__file__).parent / "fsdp_worker.py"
REPOSITORY = Path(__file__).parents[2]


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this build of PyTorch has no gloo")
def test_two_processes(tmp_path, autoencoder):
    design = generate_design(0, DesignSettings(frame_area=48 * 48))
    examples = [
        Example(
            design, Task.RESTYLE_LAYERS, (0,), slot_layout(Task.RESTYLE_LAYERS, design.layout, (0,)), ("a red cat",)
        ),
        Example(design, Task.TEXT_TO_LAYERS, (), slot_layout(Task.TEXT_TO_LAYERS, design.layout), ("a blue boat",)),
    ]
    drawn = [example.drawn() for example in examples]
    write_shard(tmp_path / "samples" / "samples-0000-00000.safetensors", drawn, RegionCodec(autoencoder))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    path = os.pathsep.join([str(REPOSITORY), str(WORKER.parent)])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    finished = subprocess.run(
        [*torchrun, str(WORKER), str(tmp_path)], env=environment, capture_output=True, text=True, timeout=600
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    assert (tmp_path / "done").exists()

    path = tmp_path / "teacher" / "state.safetensors"
    model = make_teacher(9)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    stored = load_file(path)
    assert {name[6:]: tensor.shape for name, tensor in stored.items() if name.startswith("model.")} == shapes
    state = TrainingState(model, muon_for(model, _hidden_matrices(model), 0.01, 1e-3), 0.9)
    assert state.resume(path) == {} and state.step == 2  # one process takes over
    start = dict(make_teacher(0).named_parameters())
    moved = [name for name, parameter in model.named_parameters() if not torch.equal(parameter, start[name])]
    assert "transformer.transformer_blocks.0.attn.to_q.weight" in moved and "text_encoder.tokens.weight" in moved
    make_teacher(9).load_state_dict(averaged_weights(path))
