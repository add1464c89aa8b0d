"""The public door: eight names, documented, imported when they are asked for."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import mrt_core

ROOT = Path(__file__).parents[1]
NAMES = ["Layout", "LayerStack", "MRTError", "Pipeline", "SamplingOptions", "load", "load_layout", "save"]


def test_the_public_names():
    assert sorted(mrt_core.__all__) == sorted(NAMES) and set(NAMES) <= set(dir(mrt_core))
    for name in NAMES:
        assert getattr(mrt_core, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'Pipelines'"):
        _ = mrt_core.Pipelines


def test_the_page_is_made_from_the_docstrings():
    spec = importlib.util.spec_from_file_location("build_api", ROOT / "tools" / "build_api.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.PAGE.read_text(encoding="utf-8") == tool.page()  # else: python tools/build_api.py


def test_the_door_alone_loads_nothing_heavy():
    code = "import mrt_core, sys; print(*[m for m in ('torch', 'numpy', 'PIL', 'tokenizers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == ""
