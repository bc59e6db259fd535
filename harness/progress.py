"""Where a protocol stands and when it will end, learned from its runs so far."""

import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Hashable


class Progress:
    """The runs to do, each of a kind. Runs of one kind (dataset, number of shots, training or testing) take about
    equally long.

    at_a_time: runs at a time. now: a clock that nobody sets, in seconds.
    """

    def __init__(self, kinds: dict[str, Hashable], at_a_time: int, now: Callable[[], float] = time.monotonic) -> None:
        self.kinds, self.at_a_time, self._now = dict(kinds), at_a_time, now
        self._began: dict[str, float] = {}
        self._took: dict[Hashable, list[float]] = defaultdict(list)
        self.done = 0
        self._lock = threading.Lock()  # runs begin and end in threads of their own

    def begin(self, name: str) -> None:
        with self._lock:
            self._began[name] = self._now()

    def end(self, name: str, counts: bool = True) -> None:
        """counts: whether the run finished, so that its duration predicts others."""
        with self._lock:
            took = self._now() - self._began.pop(name)
            kind = self.kinds.pop(name)
            self.done += 1
            if counts:
                self._took[kind].append(took)

    def seconds_left(self) -> float | None:
        """None until a run has finished."""
        with self._lock:
            known = [seconds for own in self._took.values() for seconds in own]
            if not known:
                return None
            usual = statistics.mean(known)
            left = []
            for name, kind in self.kinds.items():
                own = self._took.get(kind)
                expected = statistics.mean(own) if own else usual
                begun = self._began.get(name)
                left.append(expected if begun is None else max(0.0, expected - (self._now() - begun)))
        return max(sum(left) / self.at_a_time, max(left, default=0.0))

    def line(self) -> str:
        """ "12 of 60 runs done, 2 running, 46 left: until about 14:32 (21 min)" """
        seconds = self.seconds_left()
        with self._lock:
            running, left = len(self._began), len(self.kinds)
            text = f"{self.done} of {self.done + left} runs done, {running} running, {left - running} left"
        if seconds is None or not left:
            return text
        end = time.strftime("%H:%M" if seconds < 20 * 3600 else "%a %H:%M", time.localtime(time.time() + seconds))
        return f"{text}: until about {end} ({_duration(seconds)})"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
