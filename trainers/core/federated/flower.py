"""Server and clients as Flower apps: in a simulation on one machine, or in a federation of many.

What leaves a client is what `client.py` answers with. The server's apps, its nodes and what they send each other over the
network are Flower's (flwr).
"""

import contextlib
import functools
import io
import os
import queue
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_worker_niceness", "0")  # 15 otherwise, which starves clients beside anything else
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from ...paths import ROOT
from ..ranks.processes import SHARING, cores
from ..settings.errors import is_memory, one_line
from .letters import Letter

given: list[Grid] = []  # of a SuperLink that has started this process (scripts/federation)
KINDS = {"train": MessageType.TRAIN, "evaluate": MessageType.EVALUATE}
FAULT = "fault"  # of an answer: why it is none
AT_START = 300.0  # seconds that the server waits until all its clients are there
NEEDED = 4 * 2**30  # bytes of a GPU for a simulated client


def to_record(letter: Letter, text: Mapping[str, str] | None = None) -> RecordDict:
    """As Flower sends it."""
    return RecordDict({"words": ConfigRecord({**letter.words, **(text or {})}), "tensors": ArrayRecord(letter.tensors)})


def from_record(record: RecordDict) -> Letter:
    """Arrays are read without pickle. Raises ValueError for a message that is no letter."""
    try:
        return Letter(dict(record["words"]), dict(record["tensors"].to_torch_state_dict()))  # type: ignore[union-attr, call-overload]
    except (KeyError, AttributeError, TypeError, ValueError, EOFError) as error:
        raise ValueError(f"it sent what is no answer ({type(error).__name__})") from None


# --- the server's end ---------------------------------------------------------------------------------------------------


class Clients:
    """The nodes of a grid, by the numbers of their clients. config: what they build their trainer from; here: the folder
    that relative paths in it mean, where they are on this machine; broken: why its simulation has ended, once it has.

    A client that went and comes back is another node. Raises ValueError where, after some minutes, some of `number` clients
    are not there, or two nodes say that they are the same one.
    """

    def __init__(
        self,
        grid: Grid,
        number: int,
        config: str,
        wait: float,
        here: str = "",
        broken: Sequence[BaseException] = (),
    ) -> None:
        self._grid, self._number, self._wait, self._broken = grid, number, wait, broken
        self._text = {"config": config, "here": here}
        self._nodes: dict[int, int] = {}
        self._known: set[int] = set()
        until = time.monotonic() + min(wait, AT_START)
        while len(self._nodes) < number:
            for client in self._look():
                raise ValueError(f"two nodes say that they are client {client}: give each another partition-id")
            if self._broken:
                raise ValueError(f"Flower's simulation has ended: {one_line(self._broken[0])}") from self._broken[0]
            if len(self._nodes) < number and time.monotonic() > until:
                absent = sorted({*range(number)} - self._nodes.keys())
                raise ValueError(
                    f"{len(absent)} of {number} clients are not there, the first is {absent[0]}: start them"
                )
            time.sleep(0.1)

    def _look(self) -> list[int]:
        """Asks nodes that have come who they are; the clients that had another node before."""
        new = set(self._grid.get_node_ids()) - self._known
        moved = []
        for node, answer in self._send(MessageType.QUERY, {node: Letter() for node in sorted(new)}).items():
            if isinstance(answer, str):  # it is asked again
                continue
            self._known.add(node)
            client = answer.words.get("client")
            if isinstance(client, int) and 0 <= client < self._number:
                moved += [client] if client in self._nodes else []
                self._nodes[client] = node
        return moved

    def ask(self, kind: str, questions: Mapping[int, Letter]) -> dict[int, Letter | str]:
        """As Link has it."""
        self._look()
        by_node = {self._nodes[client]: letter for client, letter in questions.items()}
        answers = self._send(KINDS[kind], by_node)
        return {client: answers[self._nodes[client]] for client in questions}

    def _send(self, kind: str, letters: Mapping[int, Letter]) -> dict[int, Letter | str]:
        records = {node: to_record(letter, self._text) for node, letter in letters.items()}
        messages = [Message(record, dst_node_id=node, message_type=kind) for node, record in records.items()]
        found: dict[int, Letter | str] = dict.fromkeys(letters, f"it did not answer within {self._wait:g} seconds")
        wait = min(self._wait, AT_START) if kind == MessageType.QUERY else self._wait
        for reply in self._grid.send_and_receive(messages, timeout=wait) if messages else ():
            node = reply.metadata.src_node_id
            if reply.has_error():
                found[node] = f"it failed: {_last_line(reply.error.reason)}"
                continue
            try:
                letter = from_record(reply.content)
            except ValueError as error:
                found[node] = str(error)
                continue
            found[node] = f"it failed: {letter.words[FAULT]}" if FAULT in letter.words else letter
            if letter.words.get("memory") and self._text["here"]:  # no result may depend on the machine
                raise ValueError(f"a simulated client ran {letter.words[FAULT]}")
        return found


def _last_line(reason: str | None) -> str:
    lines = [line for line in (reason or "").splitlines() if line.strip()]
    return lines[-1].strip()[:200] if lines else "it does not say why"


# --- the clients' end ---------------------------------------------------------------------------------------------------


client_app = ClientApp()


@client_app.query()
def who(message: Message, context: Context) -> Message:
    """Says which client this node is: Flower's partition-id."""
    return Message(to_record(Letter({"client": int(context.node_config["partition-id"])})), reply_to=message)


@client_app.train()
def train(message: Message, context: Context) -> Message:
    """A round's local training."""
    return _answered("train", message, context)


@client_app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """How many test pictures the model takes for what they are."""
    return _answered("evaluate", message, context)


def _answered(kind: str, message: Message, context: Context) -> Message:
    """What fails here is told to the server, which would otherwise wait for an answer."""
    try:
        letter = from_record(message.content)
        answer = getattr(_client(letter, context), kind)(letter)
    except Exception as error:  # noqa: BLE001
        answer = Letter({FAULT: one_line(error), "memory": is_memory(error)})
    return Message(to_record(answer), reply_to=message)


def _client(letter: Letter, context: Context) -> Any:
    """The client of this node. node_config may say where its data and what it keeps are: data, keeps."""
    from .client import Client

    here = context.node_config
    trainer = _trainer(letter.words["config"], str(here.get("data", "")), letter.words["here"])
    number = int(here["partition-id"])
    return Client(trainer, number, Path(str(here.get("keeps", "") or Path(trainer.cfg.OUTPUT_DIR, "clients"))))


@functools.lru_cache(1)
def _trainer(config: str, data: str, folder: str) -> Any:
    """The trainer of a configuration, as the server has it; once in each process."""
    from dassl.engine import build_trainer
    from dassl.utils import set_random_seed

    import datasets

    from ...methods import register_all
    from ..settings.configure import default_cfg
    from ..training import device

    os.chdir(folder or ROOT)  # what relative paths in a configuration mean
    register_all()
    datasets.register_all()
    cfg = default_cfg()
    cfg.merge_from_other_cfg(type(cfg).load_cfg(config))
    if data:
        cfg.DATASET.ROOT = data
    cfg.freeze()
    set_random_seed(cfg.SEED)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        device.set_up(cfg.DETERMINISTIC, cfg.TF32)
        trainer = build_trainer(cfg)
        trainer.prepare_client()
    return trainer


# --- a simulation on one machine ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def clients(number: int, config: str, wait: float, on_gpu: bool) -> Iterator[Clients]:
    """Those of the SuperLink that has started this process, or of a simulation."""
    if given:
        yield Clients(given[0], number, config, wait)
        return
    with simulation(number, config, wait, on_gpu) as simulated:
        yield simulated


@contextlib.contextmanager
def simulation(number: int, config: str, wait: float, on_gpu: bool) -> Iterator[Clients]:
    """`number` clients in processes of this machine, as many at a time as it has cores, by Flower's simulation engine."""
    from flwr.simulation import run_simulation

    grids: queue.Queue[Grid | BaseException] = queue.Queue()
    broken: list[BaseException] = []
    done = threading.Event()
    server, share = ServerApp(), share_of_gpu() if on_gpu else 0.0

    @server.main()
    def serve(grid: Grid, context: Context) -> None:
        grids.put(grid)
        done.wait()

    def run() -> None:
        try:
            # of these, since Ray counts the machine's
            there = {"num_cpus": cores(), "num_gpus": torch.cuda.device_count() if on_gpu else 0}
            backend: Any = {
                "client_resources": {"num_cpus": 1, "num_gpus": share},
                "init_args": there | {"log_to_driver": False, "logging_level": "ERROR"},
            }
            run_simulation(server, client_app, number, backend_config=backend)
        except BaseException as error:  # noqa: BLE001  (it is raised where the grid, or its clients, are waited for)
            grids.put(error)
            broken.append(error)

    thread = threading.Thread(target=run, daemon=True)
    try:
        with _quiet(), _in_shares(share):
            thread.start()
            grid = grids.get()
            if isinstance(grid, BaseException):
                raise RuntimeError(f"Flower's simulation did not start: {one_line(grid)}") from grid
            simulated = Clients(grid, number, config, wait, os.getcwd(), broken)
        yield simulated
    finally:
        done.set()
        thread.join()


def share_of_gpu() -> float:
    """What a simulated client takes of a GPU: a quarter, or a half or all of a small one."""
    smallest = min(torch.cuda.get_device_properties(gpu).total_memory for gpu in range(torch.cuda.device_count()))
    return 1 / max(1, min(4, smallest // NEEDED))  # of one GPU each; Ray does not lay fractions over two


@contextlib.contextmanager
def _in_shares(share: float) -> Iterator[None]:
    """For the processes that are started inside, which share the cores, and a GPU of which each takes `share`."""
    shares = {"OMP_NUM_THREADS": "1"}
    if share:
        shares[SHARING] = str(int(os.environ.get(SHARING) or 1) * round(1 / share))
    before = {name: os.environ.get(name) for name in shares}
    os.environ.update(shares)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Flower says on each start that its function for this will go one day, and more that nobody can act on."""
    import logging

    logging.getLogger("flwr").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
