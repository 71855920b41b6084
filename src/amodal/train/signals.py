"""Ctrl-C and SIGTERM end a run between two steps, so that it can be saved; before the first step at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

_STDERR = 2


class Stopped(KeyboardInterrupt):
    """A signal has ended the run; the message says what is saved and how to go on.

    Attributes:
        code: exit code of the process, 128 plus the signal.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.code = 128 + number


class Signals:
    """While it is open, SIGINT and SIGTERM raise :class:`Stopped`, or are noted where ``noting`` is set.

    Noted is the first one; the next ends the run all the same, and those after it are none of this class's business.

    Attributes:
        caught: number of the signal that was noted; None before.
        noting: whether the run looks at ``caught`` between its steps.
    """

    def __init__(self, now: Callable[[], str], soon: str, *, alone: bool = True, main: bool = True) -> None:
        """
        Args:
            now: what is said when the run ends at once.
            soon: line on stderr that says that a signal was noted.
            alone: the run is that of one process. Of several, each gets Ctrl-C and then the signal of the launcher that
                got it as well, so that a second one asks for nothing new; and the launcher ends those that linger.
            main: this process is the one that saves. The others are ended by the system before the first step, as
                they wait there in calls that no Python handler interrupts.
        """
        self.caught: int | None = None
        self.noting = False
        self._now, self._soon, self._alone, self._main = now, soon, alone, main
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers there alone.
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._came if self._main else signal.SIG_DFL)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def note(self) -> None:
        """From here on signals are noted."""
        self.noting = True
        for number in self._before:
            signal.signal(number, self._came)

    def _came(self, number: int, frame: FrameType | None) -> None:
        if self.noting and self.caught is None:
            self.caught = number
            if self._main:
                _say(self._soon)
        elif not self.noting or self._alone:
            self._restore()
            raise Stopped(self._now(), number)

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)


def _say(line: str) -> None:
    # A handler may run in the middle of a write to sys.stderr, which cannot be entered twice.
    with contextlib.suppress(OSError):
        os.write(_STDERR, f"\n{line}\n".encode("ascii", "backslashreplace"))
