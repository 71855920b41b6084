"""The processes that share a job."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import torch

from amodal.launch import own_settings
from amodal.pictures import pick_device


class Team:
    """The processes that ``accelerate launch`` started; one process on its own is a team, too.

    Attributes:
        rank: number of this process.
        size: how many there are.
        device: where this process computes.
    """

    def __init__(self, device: str | None = None) -> None:
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self._state: Any = None
        if self.size == 1:
            self.rank, self.device = 0, pick_device(device)
            return
        from accelerate import PartialState  # seconds to import, for several processes alone

        # The shards of a long job need not end within the half hour that a barrier waits by default.
        with own_settings():
            self._state = PartialState(cpu=device == "cpu", timeout=timedelta(days=7))
        self.rank, self.device = int(self._state.process_index), torch.device(self._state.device)

    @property
    def is_main(self) -> bool:
        """Whether this process merges, evaluates and prints."""
        return self.rank == 0

    def wait(self) -> None:
        """Returns when every process is here."""
        if self._state is not None:
            self._state.wait_for_everyone()

    def close(self) -> None:
        """Ends the connection between the processes."""
        if self._state is not None:
            self._state.destroy_process_group()
