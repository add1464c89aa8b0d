"""Files appear whole or not at all, also when the process is killed."""

import logging
import os
import random
import signal
import time
from pathlib import Path

import pytest
from torture import noise

from mrt_core.atomic import atomic_file
from mrt_core.documents import load, save
from mrt_core.errors import MRTError
from mrt_core.geometry import Size
from mrt_core.stacks.layers import Layer, LayerStack

log = logging.getLogger(__name__)

KILLS = 50


def stack_of(seed: int, side: int = 8) -> LayerStack:
    layers = tuple(Layer(noise(side, side, seed + i), 0, 0, str(i)) for i in range(3))
    return LayerStack(Size(side, side), layers, {"seed": seed})


@pytest.mark.parametrize("name", ["a.psd", "a.psb", "a.ora", "a.zip", "a.svg", "folder"])
def test_existing_document_is_not_replaced_unless_asked(name, tmp_path: Path):
    path = tmp_path / name
    save(stack_of(1), path)
    before = sorted((file.name, file.read_bytes()) for file in ([path] if path.is_file() else path.iterdir()))
    with pytest.raises(
        MRTError, match="already exists and was left as it is; choose another name or allow overwriting"
    ):
        save(stack_of(2), path)
    assert sorted((file.name, file.read_bytes()) for file in ([path] if path.is_file() else path.iterdir())) == before
    save(stack_of(2), path, overwrite=True)
    after = sorted((file.name, file.read_bytes()) for file in ([path] if path.is_file() else path.iterdir()))
    assert after != before and len(after) == len(before)


def test_failed_save_leaves_the_old_file_and_no_other(tmp_path: Path):
    path = tmp_path / "a.psd"
    path.write_bytes(b"old")
    bad = LayerStack(Size(4, 4), (Layer(noise(4, 4, 0), 0, 0, "a"),), {"seed": float("nan")})
    with pytest.raises(MRTError):
        save(bad, path, overwrite=True)
    with pytest.raises(RuntimeError), atomic_file(path, overwrite=True) as file:
        file.write(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.psd"]


def test_file_made_meanwhile_is_not_replaced(tmp_path: Path):
    path = tmp_path / "a.psd"
    with (
        pytest.raises(MRTError, match="was created by another program meanwhile"),
        atomic_file(path, overwrite=False) as file,
    ):
        file.write(b"ours")
        path.write_bytes(b"theirs")
    assert path.read_bytes() == b"theirs"
    assert os.listdir(tmp_path) == ["a.psd"]


def test_file_systems_without_links_work(tmp_path: Path, monkeypatch):
    def refuse(*_):
        raise PermissionError("links are not supported")

    monkeypatch.setattr(os, "link", refuse)
    with atomic_file(tmp_path / "a", overwrite=False) as file:
        file.write(b"x")
    assert (tmp_path / "a").read_bytes() == b"x" and os.listdir(tmp_path) == ["a"]


def test_missing_folder_is_said(tmp_path: Path):
    with pytest.raises(MRTError, match="choose a folder that exists and is writable"):
        save(stack_of(1), tmp_path / "no" / "a.psd")


def test_very_long_file_names_can_be_written(tmp_path: Path):
    path = tmp_path / ("x" * 251 + ".psd")
    save(stack_of(1), path)
    assert path.stat().st_size > 0


@pytest.mark.skipif(os.name != "posix", reason="permissions and signals of POSIX")
def test_permissions_are_those_of_any_new_file(tmp_path: Path):
    save(stack_of(1), tmp_path / "a.psd")
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "a.psd").stat().st_mode == (tmp_path / "plain").stat().st_mode


def killed_during(action, delay: float) -> bool:
    """Run `action` in a child process and kill it after `delay` seconds; whether it was still at work."""
    child = os.fork()
    if child == 0:
        try:
            action()
        finally:
            os._exit(0)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.skipif(os.name != "posix", reason="permissions and signals of POSIX")
@pytest.mark.parametrize("name", ["a.psd", "a.zip"])
def test_kill_at_random_moments_leaves_the_old_or_the_new_file(name, tmp_path: Path):
    path, new = tmp_path / name, stack_of(9, side=200)
    save(new, path)
    new_bytes = path.read_bytes()
    start = time.perf_counter()
    save(new, path, overwrite=True)
    duration = time.perf_counter() - start
    save(stack_of(5, side=90), path, overwrite=True)
    old_bytes = path.read_bytes()
    draw, interrupted, replaced = random.Random(0), 0, 0
    for _ in range(KILLS):
        interrupted += killed_during(lambda: save(new, path, overwrite=True), draw.uniform(0, 1.5 * duration))
        assert path.read_bytes() in (old_bytes, new_bytes)
        if path.read_bytes() == new_bytes:
            replaced += 1
            path.write_bytes(old_bytes)
    assert interrupted >= KILLS // 5
    strays = [file for file in tmp_path.iterdir() if file != path]
    log.info("%d of %d saves were killed at work; %d files new, the others old", interrupted, KILLS, replaced)
    log.info("%d temporary files were left behind", len(strays))
    assert all(file.name.startswith(".") and file.suffix == ".tmp" for file in strays)
    for file in strays:
        with pytest.raises(MRTError, match="cannot be read"):
            load(file)


@pytest.mark.skipif(os.name != "posix", reason="permissions and signals of POSIX")
def test_kill_during_a_folder_save_leaves_the_old_or_the_new_document(tmp_path: Path):
    path, new, old = tmp_path / "folder", stack_of(9, side=120), stack_of(5, side=60)
    start = time.perf_counter()
    save(new, path)
    duration = time.perf_counter() - start
    draw = random.Random(1)
    for _ in range(KILLS):
        save(old, path, overwrite=True)
        killed_during(lambda: save(new, path, overwrite=True), draw.uniform(0, 1.5 * duration))
        assert load(path).metadata["seed"] in (5, 9)
        assert len(load(path).layers) == 3
