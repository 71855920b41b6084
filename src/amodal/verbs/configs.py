"""``amodal configs``: the configurations that come with the package."""

from __future__ import annotations


def configs() -> None:
    """Configurations that come with the package: "amodal train NAME ..." finds them by name.

    Each is told by its own first words, else by those of the file that it stands on.

    Example:
        amodal configs
    """
    from amodal.files import shipped_files

    known = shipped_files("configs")
    width = max(map(len, known), default=0)
    for name, path in known.items():
        lines = path.read_text(encoding="utf-8").splitlines()
        told = next((line[1:].strip() for line in lines if line.startswith("#")), "")
        base = next((line.partition(":")[2].strip() for line in lines if line.startswith("base:")), "")
        print(f"{name:<{width}}  {told or f'on top of {base}'}")
