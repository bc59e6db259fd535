"""Joins the ranks of one training, started by torchrun or Slurm's srun, and watches that none is lost.

Each rank holds a connection to rank 0, which the system closes however the process ends. So a rank that dies ends the
others at once. A collective call would wait for minutes (NCCL) or fail with an unclear message.
"""

import contextlib
import datetime
import json
import os
import re
import secrets
import selectors
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from ..runs.files import this_process
from .processes import end_workers

if TYPE_CHECKING:
    from .collectives import Ranks

ENDING = 30.0  # seconds that rank 0 waits at the end for the others
MEETING = 5  # minutes in which all ranks have to come


def started_as(env: Mapping[str, str] = os.environ) -> tuple[int, int, int]:
    """This process's rank, the number of ranks, and its number on this machine; 0, 1, 0 where it is alone.

    RANK, WORLD_SIZE and LOCAL_RANK are torchrun's words; SLURM_STEP_NUM_TASKS has only what srun started.
    Raises ValueError for words that make no sense.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    if "RANK" not in env or "WORLD_SIZE" not in env:
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
        if int(env.get("SLURM_STEP_NUM_TASKS") or 1) == 1:
            return 0, 1, 0
    try:
        rank, size, local = (int(env[name]) for name in names)
    except (KeyError, ValueError):
        rank, size, local = -1, 0, 0
    if not 0 <= rank < size or local < 0:
        said = ", ".join(f"{name} is {env.get(name)!r}" for name in names)
        raise ValueError(f"{said}: start several ranks with torchrun or srun, or unset these variables")
    return rank, size, local


def _ranks_here(env: Mapping[str, str], size: int) -> str:
    """How many of them are on this machine, of what srun started: Slurm says "4(x2),1" for three machines."""
    said = re.findall(r"(\d+)(?:\(x(\d+)\))?", env.get("SLURM_STEP_TASKS_PER_NODE", ""))
    on_each = [count for count, times in said for _ in range(int(times or 1))]
    here = int(env.get("SLURM_NODEID") or 0)
    return on_each[here] if here < len(on_each) else str(size)


def _where_rank_0_is(env: Mapping[str, str]) -> dict[str, str]:
    """MASTER_ADDR and MASTER_PORT for what srun started: the step's first machine, and a port of the step's own."""
    hosts = env.get("SLURM_STEP_NODELIST") or env.get("SLURM_NODELIST") or "127.0.0.1"
    first = re.match(r"([^,\[]*)(?:\[([^\],-]*)[^\]]*\]([^,\[]*))?", hosts)
    step = int(env.get("SLURM_JOB_ID") or 0) * 37 + int(env.get("SLURM_STEP_ID") or 0)
    address = "".join(part or "" for part in first.groups()) if first else hosts
    return {"MASTER_ADDR": address, "MASTER_PORT": str(20000 + step % 12000)}


@contextlib.contextmanager
def joined(use_cuda: bool) -> Iterator["Ranks"]:
    """This process among its training's ranks while inside; all alone, where it was started alone.

    One of several ends with the block. After an error the others are still connected, so that fail() can tell them. Raises
    ValueError where ranks and devices do not fit.
    """
    from .collectives import Ranks, set_here, this_rank  # which import torch: wrong words are told before

    rank, size, local = started_as()
    if size == 1:
        yield this_rank()
        return
    import torch
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    if "MASTER_ADDR" not in os.environ:
        os.environ |= _where_rank_0_is(os.environ)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(local))
    global _joining, _watch
    _joining = True
    os.environ.setdefault("LOCAL_WORLD_SIZE", _ranks_here(os.environ, size))
    on_gpu = use_cuda and torch.cuda.is_available()
    if on_gpu:
        count = torch.cuda.device_count()
        if 1 < count <= local:
            raise ValueError(
                f"this machine shows {count} GPUs and has a rank number {local}: start a rank for each GPU"
            )
        torch.cuda.set_device(local if count > 1 else 0)
    print(f"Rank 0 of {size} waits for the others")
    try:
        store, _, _ = next(rendezvous("env://", timeout=datetime.timedelta(minutes=MEETING)))
    except RuntimeError as error:
        raise ValueError(
            f"not all of {size} ranks met within {MEETING} minutes at {os.environ['MASTER_ADDR']}:"
            f"{os.environ['MASTER_PORT']}: look whether another failed to start ({str(error).splitlines()[0][:120]})"
        ) from None
    backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
    patience = datetime.timedelta(minutes=30)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=patience)
    set_here(ranks := Ranks(rank, size))
    _watch = Watch(ranks, os.environ["MASTER_ADDR"])
    ranks.assert_same("kind of device", "cuda" if on_gpu else "cpu")
    if on_gpu:
        uuid = torch.cuda.get_device_properties(torch.cuda.current_device()).uuid
        _refuse_shared_devices(ranks.all_say(f"{uuid} of {socket.gethostname()}"))
    print(f"Rank 0 of {size}, {'a GPU each' if on_gpu else f'{torch.get_num_threads()} threads each'}")
    status = 0
    try:
        yield ranks
    except SystemExit as asked:  # all were
        status = int(asked.code or 0)
    dist.destroy_process_group()  # while rank 0, where they meet, is still there
    _watch.leave()
    _end_process(status)


def _refuse_shared_devices(devices: list[str]) -> None:
    """Raises ValueError where two ranks have the same GPU, which NCCL cannot do and says in words of its own."""
    for rank, device in enumerate(devices):
        if device in devices[:rank]:
            raise ValueError(
                f"ranks {devices.index(device)} and {rank} share the GPU {device}: start one rank for each GPU, or set "
                "USE_CUDA False"
            )


def _end_process(status: int) -> NoReturn:
    """Ends one of several ranks at once. During Python's normal shutdown, a running gloo thread may abort the
    process."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
        end_workers()
    os._exit(status)


def fail(line: str, status: int = 1) -> None:
    """Reports why this process ends, once for all ranks, and ends all of them."""
    if _watch is None:
        if not _speaks():
            if not _joining:  # this goes wrong for rank 0, too, which says so; unless it is this machine's fault
                time.sleep(3)
            line = line.replace("error: ", f"error: rank {started_as()[0]}: ", 1)
        if line:
            print(line, file=sys.stderr)
    else:
        _watch.fail(line, status)


def _speaks() -> bool:
    """Whether this process is rank 0 or alone. An error before the ranks are joined occurs on all of them, so one
    reports it."""
    try:
        return started_as()[0] == 0
    except ValueError:
        return True


def let_one_speak() -> None:
    """From here on, only rank 0 prints and warns; errors are reported by fail()."""
    if not _speaks():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (until the process ends)
        warnings.simplefilter("ignore")


def _line_of(connection: socket.socket) -> bytes:
    """The first line, and nothing of what follows."""
    line = b""
    while len(line) < 1000 and not line.endswith(b"\n"):
        line += connection.recv(1) or b"\n"
    return line


class Watch:
    """A connection from every rank to rank 0. Lines of JSON: {"leaves": true}, or {"status": 1, "line": "error: ..."}."""

    def __init__(self, ranks: "Ranks", address: str) -> None:
        self._ranks, self._lock, self._leaving = ranks, threading.Lock(), False
        self._sockets: dict[int, socket.socket] = {}
        self._left: set[int] = set()
        self._all_left = threading.Event()
        self._over = threading.Event()
        server = socket.create_server(("", 0)) if ranks.first else None
        port, token = ranks.broadcast((server.getsockname()[1] if server else 0, secrets.token_hex(16)))
        self._who = {0: ranks.broadcast(this_process())}
        if server is not None:
            with server:
                self._receive(server, token)
        else:
            self._sockets[0] = socket.create_connection((address, port), timeout=60)
            self._sockets[0].settimeout(None)
            self._send(0, token=token, rank=ranks.rank, who=this_process())
        for connection in self._sockets.values():
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            # so that a machine that is lost, and closes nothing, is missed within half a minute
            for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
                if hasattr(socket, name):
                    connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        # a data-loading worker that outlives its rank must not seem to be it
        os.register_at_fork(after_in_child=self._close)
        threading.Thread(target=self._listen, daemon=True).start()

    def _receive(self, server: socket.socket, token: str) -> None:
        server.settimeout(60)
        while len(self._sockets) < self._ranks.size - 1:
            connection, _ = server.accept()
            connection.settimeout(60)
            try:
                hello = json.loads(_line_of(connection))
            except (OSError, ValueError):
                hello = {}
            if not isinstance(hello, dict) or hello.get("token") != token:  # nobody of ours
                connection.close()
                continue
            connection.settimeout(None)
            self._sockets[hello["rank"]], self._who[hello["rank"]] = connection, hello["who"]

    def _close(self) -> None:
        for connection in self._sockets.values():
            connection.close()

    def _send(self, to: int, **what: Any) -> None:
        with contextlib.suppress(OSError):  # gone itself
            self._sockets[to].sendall(json.dumps(what).encode() + b"\n")

    def _listen(self) -> None:
        with selectors.DefaultSelector() as selector:
            for rank, connection in self._sockets.items():
                selector.register(connection, selectors.EVENT_READ, rank)
            texts = dict.fromkeys(self._sockets, b"")
            while selector.get_map():
                for key, _ in selector.select():
                    rank = key.data
                    try:
                        heard = self._sockets[rank].recv(4096)
                    except OSError:
                        heard = b""
                    texts[rank] += heard
                    *lines, texts[rank] = texts[rank].split(b"\n")
                    for line in lines:
                        self._hear(rank, json.loads(line))
                    if not heard:
                        selector.unregister(self._sockets[rank])
                        self._lost(rank)

    def _hear(self, rank: int, told: Mapping[str, Any]) -> None:
        if told.get("leaves"):
            self._left.add(rank)
            if len(self._left) == len(self._sockets):
                self._all_left.set()
        else:
            self._end(told["line"], told["status"])

    def _lost(self, rank: int) -> None:
        if rank in self._left or (rank == 0 and self._leaving):
            return
        line = f"error: rank {rank} ({self._who[rank]}) died; the same command continues this run"
        # rank 0 speaks for all; if it is rank 0 that died, the next one does
        self._end(line if self._ranks.rank == (1 if rank == 0 else 0) else "", 1)

    def _end(self, line: str, status: int) -> NoReturn:
        """Ends this process, whatever its main thread does."""
        self._say(line, status)
        _end_process(status)

    def _say(self, line: str, status: int) -> None:
        with self._lock:
            if self._over.is_set():
                return
            self._over.set()
            if line:
                print(line, file=sys.stderr, flush=True)
            for rank in self._sockets if self._ranks.first else ():
                self._send(rank, status=status, line="")

    def fail(self, line: str, status: int) -> NoReturn:
        """Called in the main thread: rank 0 says what happened to whom, and ends the others."""
        line = line.replace("error: ", f"error: rank {self._ranks.rank}: ", 1) if self._ranks.rank else line
        if self._ranks.first:
            self._end(line, status)
        self._send(0, status=status, line=line)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # launchers send it when rank 0 has ended
        if not self._over.wait(ENDING):  # _listen ends this process when rank 0 has heard
            print(line, file=sys.stderr, flush=True)
        _end_process(status)

    def leave(self) -> None:
        """At the end, when all leave; rank 0 last, since the others look to it."""
        self._leaving = True
        if self._ranks.first:
            self._all_left.wait(ENDING)
            for rank in self._sockets:
                self._send(rank, leaves=True)
        else:
            self._send(0, leaves=True)


_watch: Watch | None = None
_joining = False  # what goes wrong may concern this rank alone
