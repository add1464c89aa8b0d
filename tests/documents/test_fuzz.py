"""A short run of the reader's fuzzing on every test run; `make fuzz` is the long one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import seeds

from mrt_core.documents import load

HERE = Path(__file__).parent
COUNT = 300


def test_corpus_is_what_its_script_writes():
    """Pixels and structure, not bytes: JPEG and PNG encoders differ between machines."""
    names = sorted(path.name for path in seeds.FOLDER.iterdir())
    assert names == sorted([
        "bitmap.psd", "clipped.psd", "cmyk.psd", "cut.psd", "deep-16.psd", "deep-32.psd", "filled.psd", "flat.psd", "gray.psd",
        "indexed.psd", "lab.psd", "masked.psd", "ours-zip.psd", "ours.ora", "ours.psb", "ours.psd", "ours.zip",
    ])  # fmt: skip
    assert all(load(seeds.FOLDER / name).layers for name in names)


@pytest.mark.skipif(os.name != "posix", reason="the memory limit is POSIX's")
def test_mutated_inputs_are_read_or_refused():
    command = [sys.executable, str(HERE / "fuzz.py"), "--count", str(COUNT), "--seed", "1"]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout, done.stderr
    figures = json.loads(done.stdout)
    assert figures["bad"] == [] and done.returncode == 0
    assert figures["count"] == COUNT == sum(figures["outcomes"].values())
    assert figures["outcomes"]["read"] > COUNT // 10 and figures["outcomes"]["refused"] > COUNT // 10
