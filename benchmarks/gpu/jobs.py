"""What the queue runs: jobs as lists of resumable commands."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import pgexp_sets
from benchmarks.eth80 import CONFIG

SPLITS = ("eth80_amodal/dev", "eth80_amodal/val", "eth80_clutter/val")

# 24 epochs at 192 px, otherwise as benchmarks/eth80.yaml
ETH80 = {
    "steps": "3600",
    "eval_every": "900",
    "save_every": "300",
    "data.workers": "3",
    "model.transform.min_size": "[192]",
    "model.transform.max_size": "288",
    "model.transform.test_min_size": "192",
    "model.transform.test_max_size": "288",
}
# the sets of docs/benchmarks/pgexp.md at a larger size: ResNet-18, 128 channels, 256 px
LARGE = {
    "batch_size": "16",
    "data.workers": "3",
    "model.backbone.name": "nano18",
    "model.backbone.channels": "128",
    "model.box_head.channels": "512",
    "model.mask_head.channels": "128",
    "model.method.box_channels": "512",
    "model.transform.min_size": "[256]",
    "model.transform.max_size": "384",
    "model.transform.test_min_size": "256",
    "model.transform.test_max_size": "384",
}
LARGE_BASE = {
    **LARGE, "steps": "6000", "save_every": "300", "freeze": "[]", "optim.lr": "0.0005",
    "model.method.train_boxes": "proposal",
}  # fmt: skip
LARGE_SET = {**LARGE, "steps": "2000", "save_every": "200"}
SCENES = {"steps": "8000", "eval_every": "2000", "save_every": "500", "data.workers": "3", "batch_size": "16"}


@dataclass
class Job:
    """Commands (arguments of ``python``) that run one after the other; each may be repeated after a kill.

    Attributes:
        name: of the job, and of its run folder.
        run: that folder.
        commands: each with the file that shows it is finished, None where the command itself knows.
        checkpoint: folder to bring home.
    """

    name: str
    run: Path
    commands: list[tuple[list[str], Path | None]] = field(default_factory=list)

    @property
    def checkpoint(self) -> Path:
        """What is brought home: the last state, as the others are compared at their last step too."""
        return self.run / "last"


def _flags(settings: dict[str, str]) -> list[str]:
    return [word for key, value in settings.items() for word in (f"--{key}", value)]


def _tests(job: Job, data: Path, device: str) -> None:
    for split in SPLITS:
        if (data / f"{split}.json").exists():
            out = job.run / split.replace("/", "_")
            files = [str(data / f"{split}.json"), str(data / split)]
            test = ["-m", "amodal", "test", str(job.checkpoint), *files, "--out", str(out), "--device", device]
            job.commands.append((test, out / "metrics.json"))


def eth80(system: str, data: Path, runs: Path, seed: int, settings: dict[str, str], device: str) -> Job:
    """One of our systems on the photographs."""
    job = Job(f"eth80_{system}_seed{seed}", runs / f"eth80_{system}_seed{seed}")
    folder = data / "eth80_amodal"
    values = {**ETH80, "model.system": system, "seed": str(seed), "out": str(job.run)}
    for part, split in (("train", "train"), ("val", "dev")):
        values |= {f"data.{part}": str(folder / f"{split}.json"), f"data.{part}_images": str(folder / split)}
    train = ["-m", "amodal", "train", str(CONFIG), "--resume", "auto", *_flags({**values, **settings})]
    job.commands.append((train, job.run / "trained"))
    _tests(job, data, device)
    return job


def eth80_torchvision(data: Path, runs: Path, seed: int, settings: dict[str, str], device: str) -> Job:
    """torchvision's Mask R-CNN on the photographs."""
    job = Job(f"eth80_torchvision_seed{seed}", runs / f"eth80_torchvision_seed{seed}")
    tests = [str(data / split) for split in SPLITS if (data / f"{split}.json").exists()]
    module = ["-m", "benchmarks.eth80_torchvision", str(CONFIG), "--data", str(data / "eth80_amodal")]
    options = ["--out", str(job.run), "--device", device, "--test", *tests]
    flags = _flags({**ETH80, "seed": str(seed), **settings})
    job.commands.append(([*module, *options, *flags], job.run / "trained"))
    for split in SPLITS:
        if (data / f"{split}.json").exists():
            folder = job.run / split.replace("/", "_")
            files = [str(data / f"{split}.json"), str(folder / "predictions.json")]
            evaluate = ["-m", "amodal", "evaluate", *files, "--out", str(folder / "metrics.json")]
            job.commands.append((evaluate, folder / "metrics.json"))
    return job


def pgexp_set(
    run: pgexp_sets.Run, data: Path, runs: Path, settings: dict[str, str], prior: list[str], device: str
) -> Job:
    """A set of Table 1 with a seed; the trained set #1 that it starts from and the prior are made by whoever is first.

    Args:
        run: set and seed.
        data: folder with ``eth80_amodal``.
        runs: run folders.
        settings: of the trainings, base and set; they win over the larger size's.
        prior: further options of ``prior fit``.
        device: of the tests.
    """
    job = Job(run.name, runs / run.name)
    folder = data / "eth80_amodal"
    files = {"data.train": str(folder / "train.json"), "data.train_images": str(folder / "train")}
    base = {"model.method.box_expansion": "none", "model.method.mask_expansion": "plain", "out": str(runs / "base")}
    train = ["-m", "amodal", "train", str(pgexp_sets.CONFIG), "--resume", "auto"]
    job.commands.append(([*train, *_flags({**LARGE_BASE, **base, **files, **settings})], runs / "base" / "trained"))
    options = ["--init", str(runs / "base" / "last")]
    if (name := pgexp_sets.SETS[run.set].prior) is not None:
        fit = ["-m", "amodal", "prior", "fit", str(folder / "train.json"), str(runs / name), *pgexp_sets.PRIORS[name]]
        job.commands.append(([*fit, *prior], runs / name / "prior.yaml"))
        options += ["--prior", str(runs / name)]
    values = {**LARGE_SET, "out": str(job.run), **files, **settings}
    job.commands.append(([*train, *options, *_flags(values), *run.flags()], job.run / "trained"))
    _tests(job, data, device)
    return job


def scenes(system: str, runs: Path, images: int, seed: int, settings: dict[str, str], device: str) -> Job:
    """The weights that ship: drawn scenes, other ones for validation."""
    job = Job(f"scenes_{system}_seed{seed}", runs / f"scenes_{system}_seed{seed}")
    config = Path("configs") / system / "nano.yaml"
    values = {**SCENES, "seed": str(seed), "out": str(job.run)}
    for part, count, number in (("train", images, 1), ("val", max(images // 20, 4), 2)):
        folder = runs / f"scenes_{part}_{count}"
        draw = ["-m", "amodal", "scenes", str(folder), "--images", str(count), "--seed", str(number), "--overwrite"]
        job.commands.append(([*draw, "--workers", "8"], folder / "annotations.json"))
        values |= {f"data.{part}": str(folder / "annotations.json"), f"data.{part}_images": str(folder / "images")}
    train = ["-m", "amodal", "train", str(config), "--resume", "auto", *_flags({**values, **settings})]
    job.commands.append((train, job.run / "trained"))
    files = [values["data.val"], values["data.val_images"]]
    test = ["-m", "amodal", "test", str(job.checkpoint), *files, "--out", str(job.run / "scenes_val")]
    job.commands.append(([*test, "--device", device], job.run / "scenes_val" / "metrics.json"))
    return job
