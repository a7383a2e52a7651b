"""Every path for ARM processors against a slow, obvious scan: cross-compiled, and run by an emulator."""

import shutil
import subprocess
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
COMPILER = shutil.which("aarch64-linux-gnu-g++")
EMULATOR = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")

pytestmark = pytest.mark.skipif(
    COMPILER is None or EMULATOR is None, reason="needs aarch64-linux-gnu-g++ and qemu-aarch64"
)


@pytest.fixture(scope="module")
def harness(tmp_path_factory):
    native = TESTS.parent / "src" / "native"
    sources = set(native.glob("*.cpp")) - {native / "module.cpp"}
    program = tmp_path_factory.mktemp("native") / "harness"
    flags = ["-std=c++17", "-O3", "-DNDEBUG", "-static", "-I", native]
    subprocess.run([COMPILER, *flags, *sources, TESTS / "native" / "harness.cpp", "-o", program], check=True)
    return program


@pytest.mark.parametrize(
    ("processor", "paths"), [("max", "neondot neon portable"), ("cortex-a53", "neon portable")]
)
def test_every_path_finds_the_same(harness, processor, paths):
    run = subprocess.run([EMULATOR, "-cpu", processor, harness], capture_output=True, text=True)
    assert (run.stdout.split(), run.returncode) == (paths.split(), 0), run.stderr
