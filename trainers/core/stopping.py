"""Being asked to stop: the step in progress ends, the run saves itself and says that it can be continued."""

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

# Windows has no SIGUSR1
ASK_TO_STOP = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name)]
RESUME_ME = 75  # exit status of a run that was asked to stop and can be continued (EX_TEMPFAIL)


class AskedToStop(SystemExit):
    """The run ends early, with everything saved that is needed to go on."""


class StopSignals:
    """Notes SIGTERM, SIGINT and SIGUSR1 (SLURM's warning) instead of dying of them, while `listening`."""

    def __init__(self) -> None:
        self.asked_by = 0

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        self.asked_by = 0

        def note(number: int, frame: Any) -> None:
            self.asked_by = number

        before = {number: signal.signal(number, note) for number in ASK_TO_STOP}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def leave_if_asked(self) -> None:
        """Raises AskedToStop when a signal has come; save before."""
        if self.asked_by:
            name = signal.Signals(self.asked_by).name
            print(f"Stopped by {name}; the same command continues this run (exit status {RESUME_ME})")
            raise AskedToStop(RESUME_ME)
