"""``amodal info``: versions, devices, free memory."""

from __future__ import annotations


def info() -> None:
    """Versions of the package and of what it builds on, the devices here, how threads wait, and the label cache.

    The label cache holds annotation files as they were read and checked, so that reading them again is quick.
    AMODAL_CACHE says where it is, AMODAL_CACHE_GB how large it may grow (gigabytes, default: 5; 0: no cache).

    Example:
        amodal info
    """
    import os
    import platform

    import torch

    from amodal.errors import counted
    from amodal.launch import THREADS
    from amodal.version import __version__

    print(f"amodal {__version__}, Python {platform.python_version()} on {platform.platform()}")
    packages = (
        "torch",
        "torchvision",
        "accelerate",
        "numpy",
        "pycocotools",
        "faster-coco-eval",
        "pillow",
        "supervision",
    )
    for name in packages:
        print(f"  {name:<18}{_version(name)}")
    print("devices")
    print(f"  {'cpu':<18}{counted(torch.get_num_threads(), 'thread')}{_free_memory()}")
    said = [f"{key}={os.environ[key]}" for key in THREADS if key in os.environ]
    print(f"  {'threads':<18}{', '.join(said) or 'as OpenMP has it'}")
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        bf16 = ", bf16" if torch.cuda.is_bf16_supported() else ""
        print(f"  {f'cuda:{index}':<18}{name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free{bf16}")
    if torch.backends.mps.is_available():
        print(f"  {'mps':<18}Apple GPU")
    print("label cache")
    for name, text in _cache():
        print(f"  {name:<18}{text}")


def _cache() -> list[tuple[str, str]]:
    """Where the label cache is, how large, and its limit."""
    from amodal.data.cache import folder
    from amodal.data.cache_limit import entries, limit_bytes
    from amodal.errors import counted, printable

    there = entries(folder())
    limit = limit_bytes()
    size = f"{sum(size for _, size, _ in there) / 1e9:.2f} GB in {counted(len(there), 'file')}"
    allowed = f"{limit / 1e9:g} GB, least used go first" if limit else "0 GB, so nothing is kept"
    return [
        ("folder", f"{printable(str(folder()))} (AMODAL_CACHE)"),
        ("size", size),
        ("limit", f"{allowed} (AMODAL_CACHE_GB)"),
    ]


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _free_memory() -> str:
    """Free memory of the machine where the system tells it (Linux), as text to append."""
    from pathlib import Path

    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return ""
    table = dict(line.split(":", 1) for line in lines)
    free, total = (int(table[key].split()[0]) / 2**20 for key in ("MemAvailable", "MemTotal"))
    return f", {free:.1f} of {total:.1f} GiB free"
