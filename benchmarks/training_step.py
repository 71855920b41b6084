"""One training step (forward, backward, SGD), ours against torchvision's, with the same weights, sizes and RoI counts.

One picture of 800 x 1333 px with 15 objects, 1000 proposals, 512 sampled (25 % positive), 256 anchors sampled.

    python -m benchmarks.training_step
"""

from __future__ import annotations

import pickle
from dataclasses import replace

import torch

from benchmarks import common
from benchmarks.detectors import ellipses, our_detector, our_targets, picture, their_targets, torchvision_detector

SIZE = (800, 1333)
SMALL = (64, 96)
OBJECTS = 15


def main() -> None:
    """torchvision's loader has decoded the masks before the step; ours decodes them in it. Both are in the picture."""
    parser = common.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--profile", action="store_true", help="print where the time goes, for both")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    size = SMALL if arguments.small else SIZE
    theirs = torchvision_detector(size, 100, 0.05).train()
    ours = our_detector(theirs, size, 100, 0.05).train()
    image, truth = picture(size), ellipses(size, OBJECTS)
    our_truth = our_targets(*truth)
    their_truth = [their_targets(*truth)]
    optimizers = {
        id(model): torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-5, momentum=0.9)
        for model in (ours, theirs)
    }
    trained = [sum(p.numel() for p in m.parameters() if p.requires_grad) for m in (ours, theirs)]
    steps = iter(range(1_000_000))

    def finish(model: torch.nn.Module, losses: dict[str, torch.Tensor]) -> None:
        optimizer = optimizers[id(model)]
        optimizer.zero_grad()
        torch.autograd.backward([torch.stack(list(losses.values())).sum()])
        optimizer.step()

    def our_step() -> None:
        ours.set_step(0, next(steps))
        # a copy of the run lengths as a loader hands it over: nothing is decoded yet
        masks = pickle.loads(pickle.dumps(our_truth.amodal))
        finish(ours, ours([image], [replace(our_truth, amodal=masks)]))

    def their_step() -> None:
        finish(theirs, theirs([image], their_truth))

    if arguments.profile:
        for name, call in (("ours", our_step), ("theirs", their_step)):
            call()
            with torch.profiler.profile() as profiler:
                call()
            print(name, profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=18), sep="\n")
        return
    times = common.alternate(our_step, their_step, 1 if arguments.small else arguments.rounds)
    common.emit(arguments, "training-step", **times, size=size, objects=OBJECTS, trained_parameters=trained)
    if not arguments.small:
        table = common.time_table(arguments.out, {"training-step": "one step"})
        common.fill_page(common.DOCS / "training.md", table)


if __name__ == "__main__":
    main()
