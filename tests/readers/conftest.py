"""Other programs that read layered documents: found, or installed where this may be done, or their tests are skipped."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NODE_FOLDER = HERE.parents[1] / "build" / "readers"
AG_PSD = "ag-psd@31.0.2"


def run(command: list[str], folder: Path | None = None, seconds: int = 600) -> str:
    """Run a program to its end and return what it wrote; an error of it is an error of the test."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}: {done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="session")
def run_program():
    """The function `run`, for the tests."""
    return run


def installed(commands: tuple[str, ...], package: str, *extra: str) -> str:
    """The path of the first of `commands` there is, after installing the Debian packages if need be; else skip."""
    for attempt in range(2):
        found = next(filter(None, map(shutil.which, commands)), None)
        if found:
            return found
        if attempt == 0 and shutil.which("apt-get") and os.geteuid() == 0:
            run(["apt-get", "update", "-qq"])
            run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", package, *extra], seconds=1800)
    pytest.skip(f"{commands[0]} is missing; install the package {package}")


@pytest.fixture(scope="session")
def ag_psd(tmp_path_factory):
    """A function from a PSD file to the tree that ag-psd reads in it, and the folder with the pixels."""
    node, npm = installed(("node",), "nodejs"), installed(("npm",), "npm")
    if not (NODE_FOLDER / "node_modules" / "ag-psd").is_dir():
        NODE_FOLDER.mkdir(parents=True, exist_ok=True)
        run([npm, "install", "--prefix", str(NODE_FOLDER), "--no-audit", "--no-fund", AG_PSD])

    def dump(file: Path) -> tuple[dict, Path]:
        folder = tmp_path_factory.mktemp("ag-psd")
        run([node, str(HERE / "ag_psd_dump.mjs"), str(file), str(folder)], NODE_FOLDER)
        return json.loads((folder / "document.json").read_text(encoding="utf-8")), folder

    return dump


@pytest.fixture(scope="session")
def gimp(tmp_path_factory):
    """A function from an image file to the nodes that GIMP 2.10 reads in it, and the folder with the pixels."""
    program = installed(("gimp-console-2.10", "gimp"), "gimp")

    def dump(file: Path) -> tuple[list[list[str]], Path]:
        folder = tmp_path_factory.mktemp("gimp")
        script = folder / "run.scm"
        library = (HERE / "gimp_dump.scm").read_text(encoding="utf-8")
        script.write_text(f'{library}\n(dump-image "{file}" "{folder}")\n(gimp-quit 0)\n', encoding="utf-8")
        interpreter = "--batch-interpreter=plug-in-script-fu-eval"
        run([program, "-i", "-d", "-f", "-s", interpreter, "-b", f'(load "{script}")'])
        lines = (folder / "document.txt").read_text(encoding="utf-8").splitlines()
        return [line.split("\t") for line in lines], folder

    return dump


@pytest.fixture(scope="session")
def imagemagick() -> str:
    """The path of ImageMagick's converting program."""
    return installed(("magick", "convert-im6.q16", "convert-im6"), "imagemagick")


@pytest.fixture(scope="session")
def krita() -> list[str]:
    """The command that starts Krita, which wants a display, on one that nobody sees."""
    return [installed(("xvfb-run",), "xvfb", "xauth"), "-a", installed(("krita",), "krita")]
