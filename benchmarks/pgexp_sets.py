"""The sets of the paper's Table 1, PGExp+, and variants of set #6: what each run of ``benchmarks.pgexp`` trains."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

CONFIG = Path(__file__).with_name("pgexp.yaml")
SPLITS = ("eth80_amodal/dev", "eth80_amodal/val", "eth80_clutter/val")


@dataclass(frozen=True)
class Set:
    """One configuration of the system ``pgexp``.

    Attributes:
        title: its name in tables.
        method: settings below ``model.method`` that differ from ``pgexp.yaml``.
        seeds: seeds that are run unless others are asked for.
        prior: folder name of the prior that it uses, a key of :data:`PRIORS`; None: it uses none.
    """

    title: str
    method: dict[str, str]
    seeds: tuple[int, ...] = (0,)
    prior: str | None = "prior"


def _table(box: str, mask: str) -> dict[str, str]:
    return {"box_expansion": box, "mask_expansion": mask}


_FULL = _table("prior", "prior")
_MIXED = {"reference": "mixed", "dropout": "0.5"}
_SEEDS = (0, 1, 2)

# Options of `amodal prior fit` beside its defaults.
PRIORS: dict[str, list[str]] = {
    "prior": [],
    "prior-visible": ["--key-frame", "visible"],
    "prior-visible-aspect": ["--key-frame", "visible", "--key-aspect", "10"],
}

TABLE: dict[str, Set] = {
    "s1": Set("#1", _table("none", "plain"), _SEEDS, prior=None),
    "s6": Set("#6 PGExp", _FULL, _SEEDS),
    "plus": Set("PGExp+", {**_FULL, "rerank": "occluder"}, _SEEDS),
    "s3": Set("#3", _table("prior", "plain")),
    "s4": Set("#4", _table("none", "prior")),
    "s2": Set("#2", _table("plain", "plain"), prior=None),
    "s5": Set("#5", _table("plain", "prior")),
}
VARIANTS: dict[str, Set] = {
    "s6-proposal": Set("#6, B^o is the proposal in training", {**_FULL, "train_boxes": "proposal"}),
    "s6-reference": Set("#6, deltas from B^o", {**_FULL, "reference": "original"}),
    "s6-attention": Set("#6, attention over the priors", {**_FULL, "aggregate": "attention"}),
    "s6-instance": Set("#6, own prior left out in training", {**_FULL, "exclude": "instance"}),
    "s6-image": Set("#6, own image's priors left out in training", {**_FULL, "exclude": "image"}),
    "s6-masks": Set("#6, retrieved masks concatenated (rejected)", _table("prior", "masks")),
    "s6-key": Set("#6, visible key frame", _FULL, prior="prior-visible"),
    "s6-aspect": Set("#6, visible key frame and aspect", _FULL, prior="prior-visible-aspect"),
    "s2-mixed": Set("#2, mixed reference", {**_table("plain", "plain"), **_MIXED}, prior=None),
    "s6-mixed": Set("#6, mixed reference", {**_FULL, **_MIXED}),
    "plus-mixed": Set("PGExp+, mixed reference", {**_FULL, **_MIXED, "rerank": "occluder"}),
    "plus-mixed-image": Set(
        "PGExp+, mixed reference, own image's priors left out",
        {**_FULL, **_MIXED, "rerank": "occluder", "exclude": "image"},
    ),
    "plus-attention": Set("PGExp+, attention", {**_FULL, "rerank": "occluder", "aggregate": "attention"}),
    "plus-image": Set("PGExp+, own image's priors left out", {**_FULL, "rerank": "occluder", "exclude": "image"}),
}
SETS: dict[str, Set] = {**TABLE, **VARIANTS}


@dataclass(frozen=True)
class Run:
    """A set with a seed; ``suffix`` tells runs with other settings apart."""

    set: str
    seed: int
    suffix: str = ""
    settings: dict[str, str] = field(default_factory=dict, hash=False)

    @property
    def name(self) -> str:
        """Name of the run's folder and of its result file."""
        return f"{self.set}{self.suffix}-{self.seed}"

    def flags(self) -> list[str]:
        """Options of ``amodal train`` that make the set, without data, prior and folders."""
        pairs = {f"model.method.{key}": value for key, value in SETS[self.set].method.items()}
        pairs |= {"seed": str(self.seed), **self.settings}
        return [word for key, value in pairs.items() for word in (f"--{key}", value)]


def chosen(only: list[str], suffix: str = "", settings: dict[str, str] | None = None) -> list[Run]:
    """Runs for ``s6:0``, ``s6`` (its usual seeds) or, without any, Table 1 and PGExp+: seed 0 of all sets first.

    Raises:
        ValueError: a set is unknown or a seed is no number.
    """
    wanted: list[tuple[str, int]] = []
    for word in only or list(TABLE):
        name, _, seed = word.partition(":")
        if name not in SETS:
            raise ValueError(f"no set {name!r}; there are {', '.join(SETS)}")
        wanted += [(name, number) for number in ([int(seed)] if seed else SETS[name].seeds)]
    if not only:
        wanted.sort(key=lambda pair: pair[1])
    return [Run(name, seed, suffix, settings or {}) for name, seed in wanted]
