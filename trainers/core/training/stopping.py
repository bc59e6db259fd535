"""Stopping on a signal: the current step finishes, and the run saves a checkpoint and reports that it can be
continued."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

# Windows has no SIGUSR1 and no SIGHUP
ASK_TO_STOP = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP") if hasattr(signal, name)]
RESUME_ME = 75  # exit status of a run that was asked to stop and can be continued (EX_TEMPFAIL)


def on_stop_signals(handler: Callable[[int, Any], None]) -> dict[int, Any]:
    """Has `handler` called for them, and returns what was there before. SIGHUP stays ignored under nohup."""
    listened = [n for n in ASK_TO_STOP if n.name != "SIGHUP" or signal.getsignal(n) != signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in listened}


class AskedToStop(SystemExit):
    """The run ends early, with everything saved that is needed to go on."""


class StopSignals:
    """While `listening`, SIGTERM, SIGINT, SIGUSR1 (Slurm's warning) and SIGHUP are recorded and do not end the process.

    A signal to one rank stops all ranks: they `agree` about it at the same step and stop together.
    """

    def __init__(self) -> None:
        self._noted = self.asked_by = 0

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        self._noted = self.asked_by = 0

        def note(number: int, frame: Any) -> None:
            self._noted = number

        before = on_stop_signals(note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def agree(self, due: bool = False) -> bool:
        """Whether a signal has come to any rank, then noted in `asked_by`, or a save is `due` on any."""
        from ..ranks.collectives import (
            this_rank,  # which imports torch; who only asks for RESUME_ME need not wait for it
        )

        self.asked_by, is_due = this_rank().all_max(self._noted, int(due))
        return bool(self.asked_by or is_due)

    def leave_if_asked(self) -> None:
        """Raises AskedToStop when the ranks agreed to stop; save before."""
        if self.asked_by:
            self.agree()  # so that no rank goes before rank 0 has saved
            name = signal.Signals(self.asked_by).name
            print(f"Stopped by {name}; the same command continues this run (exit status {RESUME_ME})")
            raise AskedToStop(RESUME_ME)
