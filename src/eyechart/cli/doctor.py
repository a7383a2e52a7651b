"""`eyechart doctor`: what is installed, what the machine has, and what is missing for what."""

import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer

from eyechart import __version__
from eyechart.cli.console import emit

REQUIRED = (
    "torch",
    "transformers",
    "accelerate",
    "peft",
    "safetensors",
    "huggingface_hub",
    "pyarrow",
    "numpy",
    "scipy",
    "Pillow",
)
OPTIONAL = {
    "timm": "encoders named timm:... (pip install 'eyechart[timm]')",
    "open_clip_torch": "encoders named open_clip:... (pip install 'eyechart[open-clip]')",
    "eyechart-kernels": "a faster join of many pictures, the pairs are the same (pip install ./kernels in the repository)",
    "torchvision": "faster image processors, timm and open_clip; its build must fit the installed torch",
}


def check_machine(
    *, json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False
) -> None:
    """Say what is installed, what the machine has, and what is missing for what; exit with 1 if a need is unmet.

    Example:  eyechart doctor --json
    """
    found = _examine_machine()
    if json:
        emit(found)
    else:
        _print(found)
    if found["problems"]:
        raise typer.Exit(1)


def _examine_machine() -> dict[str, Any]:
    packages = {name: _version(name) for name in REQUIRED}
    optional = {name: _version(name) for name in OPTIONAL}
    problems = [
        f"{name} is not installed: pip install eyechart" for name, found in packages.items() if found is None
    ]
    device: dict[str, Any] = {}
    if packages["torch"]:
        device, device_problems = _devices()
        problems += device_problems
    if optional["torchvision"]:
        problems += _torchvision_problem()
    return {
        "eyechart": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "free_disk_gib": round(shutil.disk_usage(Path.cwd()).free / 2**30, 1),
        "packages": packages,
        "optional": optional,
        "torch": device,
        "hub": _hub(),
        "problems": problems,
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _devices() -> tuple[dict[str, Any], list[str]]:
    try:
        import torch
    except (ImportError, OSError, RuntimeError) as error:
        return {}, [f"torch is installed but cannot be imported: {error}"]
    devices = ["cpu"]
    devices += [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return {"devices": devices, "threads": torch.get_num_threads()}, []


def _torchvision_problem() -> list[str]:
    try:
        import torchvision  # type: ignore[import-not-found]  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        return [
            f"torchvision is installed but does not fit this torch ({error}); install both from the same source"
        ]
    return []


def _hub() -> dict[str, Any]:
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    return {"offline": offline, "cache": str(home), "cache_exists": home.is_dir()}


def _print(found: dict[str, Any]) -> None:
    print(f"eyechart {found['eyechart']}, Python {found['python']}, {found['platform']}")
    print(f"{found['cpus']} CPUs, {found['free_disk_gib']} GiB free here")
    print(f"devices: {', '.join(found['torch'].get('devices', ['none']))}")
    hub = found["hub"]
    print(
        f"hub: {'set to offline' if hub['offline'] else 'not set to offline (not tried)'}, cache {hub['cache']}"
    )
    for name, installed in found["packages"].items():
        print(f"  {name:<18}{installed or 'MISSING'}")
    for name, installed in found["optional"].items():
        print(f"  {name:<18}{installed or 'absent'}  (optional) {OPTIONAL[name]}")
    for problem in found["problems"]:
        print(f"problem: {problem}", file=sys.stderr)
    if not found["problems"]:
        print("nothing is missing for an exam")
