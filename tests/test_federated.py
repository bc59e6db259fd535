"""Federated methods: partitions, what is sent, rounds in one process and by Flower, what a client may do wrong."""

import contextlib
import csv
import datetime
import ipaddress
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import DATA, ROOT, fidelity_root, in_double, noting_steps, patience, run_train
from dassl.engine import build_trainer
from dassl.utils import set_random_seed
from hypothesis import given, settings
from hypothesis import strategies as st

import datasets
import train
from harness.launcher import free_port
from trainers import load_run, methods
from trainers.core.clip.backbones import load_backbone
from trainers.core.federated.client import Client
from trainers.core.federated.letters import Letter, fault_of, fault_of_test, weighted_mean
from trainers.core.federated.partition import Part, partition
from trainers.core.training import checkpoints
from trainers.core.training.trainer import PromptTrainer
from trainers.pfedmoap.model import ExpertsCLIP
from trainers.pfedmoap.trainer import selected

FEDERATED = [name for name, method in methods.methods().items() if method.federated]
ROUNDS = 3


def pictures(labels, domains=None):
    domains = domains or [0] * len(labels)
    return [SimpleNamespace(label=label, domain=domain) for label, domain in zip(labels, domains, strict=True)]


@given(
    kind=st.sampled_from(["classes", "dirichlet"]), clients=st.integers(1, 12), classes=st.integers(1, 12),
    shots=st.integers(1, 9), concentration=st.floats(0.01, 100), seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_every_picture_is_in_one_part(kind, clients, classes, shots, concentration, seed):
    items = pictures([c for c in range(classes) for _ in range(shots)])
    if clients > (classes if kind == "classes" else len(items)):
        with pytest.raises(ValueError, match=f"CLIENTS is {clients}, but there are"):
            partition(kind, items, clients, concentration, seed)
        return
    parts = partition(kind, items, clients, concentration, seed)
    assert parts == partition(kind, items, clients, concentration, seed)
    assert sorted(i for part in parts for i in part.train) == list(range(len(items)))
    assert len(parts) == clients
    for part in parts:
        assert part.classes == {items[i].label for i in part.train}
        assert all(part.asks_for(items[i]) for i in part.train)
    if kind == "classes":
        assert sum(len(part.classes) for part in parts) == classes


def test_domains_are_shared_out_among_their_clients():
    items = pictures([0, 1] * 12, [i // 8 for i in range(24)])
    parts = partition("domains", items, 6, 0.5, 1)
    assert [sorted(part.domains) for part in parts] == [[0], [0], [1], [1], [2], [2]]
    assert sorted(i for part in parts for i in part.train) == list(range(24))
    assert parts[0].asks_for(SimpleNamespace(label=5, domain=0))
    assert not parts[0].asks_for(SimpleNamespace(label=0, domain=1))
    with pytest.raises(
        ValueError, match="CLIENTS is 4, but the training pictures have 3 domains: use 3, or a multiple"
    ):
        partition("domains", items, 4, 0.5, 1)
    with pytest.raises(ValueError, match="have 1 domains: use PARTITION classes or dirichlet"):
        partition("domains", pictures([0, 1]), 2, 0.5, 1)


def test_the_mean_is_weighted_by_pictures():
    like = {"ctx": torch.zeros(2)}
    answers = {
        k: Letter({"pictures": n, "loss": 0.0}, {"ctx": torch.tensor(v)})
        for k, n, v in ((3, 1, [4.0, 0]), (0, 3, [0.0, 8]))
    }
    assert weighted_mean(answers, like)["ctx"].tolist() == [1.0, 6.0]


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ("it failed: no power", "it failed: no power"),
        (Letter({"pictures": 3}), "it sent nothing in the place of ctx"),
        (
            Letter({"pictures": 3}, {"ctx": torch.zeros(2), "gate": torch.zeros(1)}),
            "it sent ctx, gate in the place of ctx",
        ),
        (
            Letter({"pictures": 3}, {"ctx": torch.zeros(3)}),
            r"its ctx is (3,) torch.float32, which should be (2,) torch",
        ),
        (Letter({"pictures": 3}, {"ctx": torch.zeros(2).double()}), "its ctx is (2,) torch.float64, which should be"),
        (Letter({"pictures": 3}, {"ctx": torch.tensor([1, float("nan")])}), "its ctx is not finite"),
        (Letter({"pictures": 0}, {"ctx": torch.zeros(2)}), "it says that it has 0 pictures, and it was given 3"),
        (Letter({"pictures": 3}, {"ctx": torch.zeros(2)}), "its loss is None"),
        (Letter({"pictures": 3, "loss": float("nan")}, {"ctx": torch.zeros(2)}), "its loss is nan"),
        (Letter({"pictures": 1e9}, {"ctx": torch.zeros(2)}), "it says that it has 1000000000.0 pictures"),
        (Letter({"pictures": 3, "loss": 0.5}, {"ctx": torch.zeros(2)}), ""),
    ],
)
def test_answers_that_cannot_be_used(answer, fault):
    assert fault_of(answer, {"ctx": torch.zeros(2)}, 3).startswith(fault)
    assert bool(fault_of(answer, {"ctx": torch.zeros(2)}, 3)) == bool(fault)


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ("it failed: no power", "it failed: no power"),
        (Letter({"asked": 3}), "it says that None of 3 are right, and was asked about 3"),
        (Letter({"right": 4, "asked": 3}), "it says that 4 of 3 are right, and was asked about 3"),
        (Letter({"right": 0, "asked": 0}), "it says that 0 of 0 are right, and was asked about 3"),
        (Letter({"right": 1, "asked": 3}), "it says that None of None are right, and was asked about 9"),
        (Letter({"right": 1, "asked": 3, "right_of_all": 2, "all": 9}), ""),
    ],
)
def test_answers_to_a_test_that_cannot_be_used(answer, fault):
    assert fault_of_test(answer, 3, of_all=9) == fault


def test_whose_prompts_a_client_downloads():
    taken = {k: {"ctx": torch.tensor([[float(at)]])} for k, at in ((0, 0), (1, 5), (2, 1), (4, -2))}
    assert selected(taken, 3, 2, "nearest", 1) == []  # it has not trained
    assert selected(taken, 0, 2, "nearest", 1) == [2, 4]
    assert selected(taken, 1, 9, "nearest", 1) == [2, 0, 4]
    orders = [selected(taken, k, 3, "random", 1) for k in (0, 1)]
    assert [k for k in orders[0] if k != 1] == [k for k in orders[1] if k != 0]  # one order for all


# --- rounds in one process: the reference -------------------------------------------------------------------------------


class InProcess:
    """A link to clients of this process. spoil: what becomes of an answer."""

    def __init__(self, trainer, folder, spoil=lambda kind, client, words, answer: answer):
        self.trainer, self.folder, self.spoil, self.sent = trainer, folder, spoil, []

    def ask(self, kind, questions):
        before = checkpoints.random_state()
        answers = {}
        for client, question in questions.items():
            answer = getattr(Client(self.trainer, client, self.folder), kind)(question)
            self.sent.append((kind, client, question, answer))
            answers[client] = self.spoil(kind, client, question.words, answer)
        checkpoints.set_random_state(before)
        return answers


def words(mini_root, clip_file, out, trainer, *more):
    return [
        "--root", mini_root, "--seed", 1, "--trainer", trainer, "--backbone", clip_file, "--output-dir", out,
        "--dataset-config-file", "configs/datasets/caltech101.yaml",
        "--config-file", f"configs/trainers/{trainer}/small.yaml",
        "DATASET.NUM_SHOTS", 4, "DATALOADER.NUM_WORKERS", 0, "OPTIM.MAX_EPOCH", ROUNDS, *options(trainer, *more),
    ]  # fmt: skip


def options(trainer, *more):
    key = methods.methods()[trainer].options.KEY
    own = {"CLIENTS": 3, "LOCAL_EPOCHS": 2} | ({"EXPERTS": 2, "GATE_WIDTH": 16} if trainer == "PFedMoAP" else {})
    own |= dict(zip(more[::2], more[1::2], strict=True))
    return [word for name, value in own.items() for word in (name if "." in name else f"TRAINER.{key}.{name}", value)]


def federation(mini_root, clip_file, out, trainer, *more, spoil=None):
    """A server and its clients, built like those of two processes."""
    methods.register_all()
    datasets.register_all()
    cfg = train.setup_cfg(train.parse_arguments([str(w) for w in words(mini_root, clip_file, out, trainer, *more)]))
    set_random_seed(cfg.SEED)
    clients = build_trainer(cfg)
    clients.prepare_client()
    set_random_seed(cfg.SEED)
    server = build_trainer(cfg)
    server.link = InProcess(clients, Path(out) / "clients", *([spoil] if spoil else []))
    return server


def tensors_of(server):
    return {name: tensor.detach().clone() for name, tensor in server.shared().items()}


@pytest.mark.parametrize("trainer", FEDERATED)
def test_rounds_and_resuming(trainer, mini_root, literate_clip_file, tmp_path):
    """Three rounds, of which each asks two of three clients; and the same stopped after the second."""
    more = ("PARTICIPATION", 0.7)
    whole = federation(mini_root, literate_clip_file, tmp_path / "whole", trainer, *more)
    whole.train()
    assert [row["answered"] for row in whole.rounds] == [2] * ROUNDS
    left = {name for kind, _, _, answer in whole.link.sent if kind == "train" for name in answer.tensors}
    assert left == whole.shared().keys()  # nothing else leaves a client
    assert not left & whole.private().keys()
    for kind, _, _, answer in whole.link.sent:
        assert answer.words.keys() <= (
            {"pictures", "loss"} if kind == "train" else {"right", "asked", "right_of_all", "all"}
        )
        assert kind == "train" or not answer.tensors
    changed = [not torch.equal(tensor, whole.start[name]) for name, tensor in whole.shared().items()]
    assert any(changed) or not changed
    for name in whole.private():  # each client has its own
        kept = [checkpoints.load(file)["state_dict"][name] for file in (tmp_path / "whole").glob("clients/*/*/round-*")]
        assert not all(torch.equal(kept[0], one) for one in kept[1:])

    def kill(kind, client, sent, answer):
        if kind == "train" and sent["round"] == ROUNDS:
            raise Killed
        return answer

    first = federation(mini_root, literate_clip_file, tmp_path / "stopped", trainer, *more, spoil=kill)
    with pytest.raises(Killed):  # while the clients work on the last round
        first.train()
    again = federation(mini_root, literate_clip_file, tmp_path / "stopped", trainer, *more)
    again.train()
    assert again.rounds == whole.rounds
    assert again.results == whole.results
    for name, tensor in whole.shared().items():
        assert torch.equal(tensor, again.shared()[name]), name


class Killed(Exception):
    pass


@pytest.mark.parametrize("frequency", [2, 0])
def test_a_server_that_seldom_saves_goes_back_to_what_clients_still_have(
    frequency, mini_root, literate_clip_file, tmp_path
):
    """Killed in the third round, with a checkpoint of the second, or with none."""
    more = ("TRAIN.CHECKPOINT_FREQ", frequency)
    whole = federation(mini_root, literate_clip_file, tmp_path / "whole", "FedPer", *more)
    whole.train()

    def kill(kind, client, sent, answer):
        if kind == "evaluate" and sent["all"]:
            raise Killed
        return answer

    first = federation(mini_root, literate_clip_file, tmp_path / "stopped", "FedPer", *more, spoil=kill)
    with pytest.raises(Killed):
        first.train()
    again = federation(mini_root, literate_clip_file, tmp_path / "stopped", "FedPer", *more)
    again.train()
    assert again.rounds == whole.rounds


def test_runs_that_share_a_clients_disk_keep_apart(mini_root, literate_clip_file, tmp_path):
    runs = [
        federation(mini_root, literate_clip_file, tmp_path / str(lr), "FedPer", "OPTIM.LR", lr) for lr in (0.1, 0.2)
    ]
    for run in runs:
        run.link.folder = tmp_path / "keeps"
        run.train()
    alone = federation(mini_root, literate_clip_file, tmp_path / "alone", "FedPer", "OPTIM.LR", 0.1)
    alone.train()
    assert alone.rounds == runs[0].rounds
    assert len(list((tmp_path / "keeps").glob("*/client0"))) == 2


def test_a_client_whose_own_part_is_not_finite_has_failed(mini_root, literate_clip_file, tmp_path):
    server = federation(mini_root, literate_clip_file, tmp_path, "LocalCoOp", "OPTIM.LR", 1e30)
    with pytest.raises(FloatingPointError, match=r"its \S+ is not finite: lower OPTIM.LR"):
        server.train()


def test_a_client_that_fails_is_left_out_and_named(mini_root, literate_clip_file, tmp_path, capsys):
    def spoil(kind, client, sent, answer):
        if kind == "train" and client == 1 and sent["round"] == 2:
            return Letter(answer.words, {name: tensor * float("nan") for name, tensor in answer.tensors.items()})
        if kind == "train" and client == 2 and sent["round"] == 1:
            return "it did not answer within 5 seconds"
        return "it failed: away" if kind == "evaluate" and client == 0 else answer

    server = federation(mini_root, literate_clip_file, tmp_path, "PFedMoAP", spoil=spoil)
    server.train()
    assert [row["answered"] for row in server.rounds] == [2, 2, 3]
    assert [row["tested"] for row in server.rounds] == [2, 2, 2]
    said = capsys.readouterr().out
    assert "client 1 is left out of round 2: its ctx is not finite" in said
    assert "client 2 is left out of round 1: it did not answer within 5 seconds" in said
    assert "client 0 is not tested in round 1: it failed: away" in said
    asked = {(k, q.words["round"]): q for kind, k, q, _ in server.link.sent if kind == "train"}
    assert asked[2, 2].words["last"] == 0  # as if it had not trained
    assert asked[1, 3].words["last"] == 1
    assert "experts" not in asked[2, 2].tensors
    assert "experts" in asked[1, 3].tensors
    assert server.shared()["ctx"].isfinite().all()


def test_a_round_of_which_nothing_can_be_used_ends_the_run(mini_root, literate_clip_file, tmp_path):
    server = federation(mini_root, literate_clip_file, tmp_path, "PromptFL", spoil=lambda *_: "it failed: away")
    with pytest.raises(RuntimeError, match="no client's answer could be used in round 1: it failed: away"):
        server.train()


def test_one_client_with_everything_is_its_own_mean(mini_root, literate_clip_file, tmp_path):
    server = federation(mini_root, literate_clip_file, tmp_path, "PromptFL", "CLIENTS", 1)
    server.train()
    sent = [answer.tensors["ctx"] for kind, _, _, answer in server.link.sent if kind == "train"]
    torch.testing.assert_close(server.shared()["ctx"].detach(), sent[-1])
    assert server.results["accuracy"] == server.results["accuracy_on_all"]


def far(server):
    """How far the shared context has gone."""
    return float((server.shared()["ctx"] - server.start["ctx"]).detach().norm())


def test_a_large_proximal_term_holds_clients_back(mini_root, literate_clip_file, tmp_path):
    moved, slow = {}, ("OPTIM.LR", 0.005, "LOCAL_EPOCHS", 10)
    for mu in (0.0, 100.0):
        server = federation(mini_root, literate_clip_file, tmp_path / str(mu), "FedProx", "MU", mu, *slow)
        server.train()
        moved[mu] = far(server)
    assert moved[100.0] < 0.5 * moved[0.0]
    plain = federation(mini_root, literate_clip_file, tmp_path / "plain", "PromptFL", *slow)
    plain.train()
    assert far(plain) == moved[0.0]


@pytest.mark.parametrize(("trainer", "kept"), [("LocalCoOp", "ctx"), ("FedPer", "own_ctx"), ("FedMoCoOp", "router.")])
def test_a_server_without_what_its_clients_keep_is_no_model(trainer, kept, mini_root, literate_clip_file, tmp_path):
    server = federation(mini_root, literate_clip_file, tmp_path, trainer, "OPTIM.MAX_EPOCH", 1)
    server.train()
    with pytest.raises(ValueError, match=f"server, and its clients keep what it lacks: {kept}"):
        load_run(tmp_path, epoch=1, backbone=str(literate_clip_file))


def test_a_finished_federation_is_used(mini_root, literate_clip_file, tmp_path):
    """The server's model is the mean, without experts."""
    server = federation(mini_root, literate_clip_file, tmp_path, "PFedMoAP")
    server.train()
    model = load_run(tmp_path, epoch=ROUNDS, backbone=str(literate_clip_file)).with_classes(server.classnames)
    images = torch.randn(2, 3, 32, 32)
    server.set_model_mode("eval")
    with torch.no_grad():
        torch.testing.assert_close(model(images), server.model(images))
    parts = (tmp_path / "parts.csv").read_text().splitlines()
    assert len(parts) == 1 + 6 * 4
    assert (tmp_path / "rounds.csv").read_text().count("\n") == 1 + ROUNDS
    clients = (tmp_path / "clients.csv").read_text().splitlines()
    assert clients[0] == "client,pictures,test_pictures,accuracy,accuracy_on_all"
    assert len(clients) == 4


def test_what_cannot_be_is_refused(mini_root, literate_clip_file, tmp_path):
    for trainer, more, said in (
        ("PromptFL", ("CLIENTS", 7), "CLIENTS is 7, but there are 6 classes: use fewer, or PARTITION dirichlet"),
        ("PromptFL", ("TEST.FINAL_MODEL", "best_val"), "a federation tests its last round"),
        ("FedPer", ("PERSONAL_TOKENS", 9), "PERSONAL_TOKENS is 9, but the context has 4 tokens"),
        ("PFedMoAP", ("GATE_WIDTH", 24), "GATE_WIDTH is 24 with 8 GATE_HEADS: use a divisor of the"),
        ("PromptFL", ("OPTIM.SCHEDULE", "step"), "OPTIM.SCHEDULE is step: a federation's rate changes by rounds"),
        ("PromptFL", ("DATALOADER.TRAIN_X.SAMPLER", "WeightedRandomSampler"), "clients draw at random; leave it out"),
        ("PromptFL", ("CONCENTRATION", 0.1), 'CONCENTRATION acts with PARTITION "dirichlet" alone'),
    ):
        done = run_train(*words(mini_root, literate_clip_file, tmp_path / "out", trainer, *more))
        assert done.returncode == 1
        assert said in done.stderr, done.stderr


# --- Flower ---------------------------------------------------------------------------------------------------------------


def grid_of(nodes, answer=None):
    """Clients' nodes, all of which answer the same."""
    from flwr.app import Message

    from trainers.core.federated.flower import to_record

    def replies(messages, timeout):
        for message in messages:
            asks_who = message.metadata.message_type == "query"
            yield Message(to_record(Letter({"client": 0}) if asks_who else answer), reply_to=message)

    return SimpleNamespace(get_node_ids=lambda: nodes, send_and_receive=replies)


def test_memory_that_runs_out_ends_a_simulation_and_no_federation(monkeypatch):
    from flwr.supercore.task_identity import TaskIdentity

    from trainers.core.federated.flower import FAULT, Clients

    for name in ("_run_id", "_task_id", "_node_id"):  # as in a server that Flower has started
        monkeypatch.setattr(TaskIdentity, name, 1)
    grid = grid_of([7], Letter({FAULT: "out of memory (8 GiB)", "memory": True}))
    assert Clients(grid, 1, "", 5).ask("train", {0: Letter()}) == {0: "it failed: out of memory (8 GiB)"}
    with pytest.raises(ValueError, match="a simulated client ran out of memory"):
        Clients(grid, 1, "", 5, here="/somewhere").ask("train", {0: Letter()})


def test_a_simulation_that_ended_before_its_clients_came_says_why():
    from trainers.core.federated.flower import Clients

    with pytest.raises(ValueError, match="Flower's simulation has ended: no GPU is there"):
        Clients(grid_of([]), 1, "", 5, broken=[RuntimeError("no GPU is there")])


@pytest.mark.slow
def test_flowers_simulation_gives_the_same_numbers(mini_root, literate_clip_file, tmp_path):
    reference = federation(mini_root, literate_clip_file, tmp_path / "reference", "PFedMoAP")
    reference.train()
    done = run_train(*words(mini_root, literate_clip_file, tmp_path / "flower", "PFedMoAP"))
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "flower" / "results.json").read_text())
    assert {name: results[name] for name in reference.results} == reference.results
    state = checkpoints.load(tmp_path / "flower" / "prompt_learner" / f"model.pth.tar-{ROUNDS}")
    assert state["federation"]["rounds"] == reference.rounds
    for name, tensor in reference.shared().items():
        assert torch.equal(state["state_dict"][name], tensor)
    for file in (tmp_path / "reference" / "clients").rglob("round-*"):
        twin = tmp_path / "flower" / file.relative_to(tmp_path / "reference")
        own, others = (checkpoints.load(f)["state_dict"] for f in (file, twin))
        assert all(torch.equal(own[name], others[name]) for name in own)


def certificates(folder):
    """A certificate authority's own, and of a server at 127.0.0.1 that it has signed, with the server's key; as PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    now = datetime.datetime.now(datetime.UTC)
    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("ca", "server")}
    called = {name: x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]) for name in keys}
    here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    for name, key in keys.items():
        more = x509.BasicConstraints(ca=True, path_length=None) if name == "ca" else here
        signed = (
            x509.CertificateBuilder().subject_name(called[name]).issuer_name(called["ca"]).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1)).add_extension(more, critical=name == "ca")
            .sign(keys["ca"], hashes.SHA256())
        )  # fmt: skip
        (folder / f"{name}.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    how = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "server.key").write_bytes(keys["server"].private_bytes(*how))


@pytest.mark.slow
def test_a_federation_of_processes_that_talk_over_the_network(mini_root, literate_clip_file, tmp_path):
    """A SuperLink and two SuperNodes, encrypted, of which one is killed after the first round and started again."""
    port, bin_, pem = free_port(), Path(sys.executable).parent, tmp_path
    environment = os.environ | {"FLWR_HOME": str(tmp_path / "flower"), "FLWR_TELEMETRY_ENABLED": "0",
                                "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}"}  # fmt: skip
    (tmp_path / "flower").mkdir()
    certificates(tmp_path)
    (tmp_path / "flower" / "config.toml").write_text(
        f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "127.0.0.1:{port}"\n'
        f'root-certificates = "{pem}/ca.pem"\n'
    )
    started = []

    def start(name, *words):
        with (tmp_path / f"{name}{len(started)}.log").open("w") as log:
            process = subprocess.Popen([bin_ / words[0], *words[1:]], env=environment, stdout=log, stderr=log,
                                       cwd=tmp_path, start_new_session=True)  # fmt: skip
        started.append(process)
        return process

    def node(client):
        config = f'partition-id={client} keeps="{tmp_path}/kept{client}"'
        return start(f"node{client}", "flower-supernode", "--root-certificates", f"{pem}/ca.pem",
                     "--superlink", f"127.0.0.1:{port}",
                     "--port", str(free_port()), "--node-config", config)  # fmt: skip

    def answered():
        file = tmp_path / "out" / "rounds.csv"
        return [int(row["answered"]) for row in csv.DictReader(file.read_text().splitlines())] if file.is_file() else []

    def until(condition, seconds):
        end = time.monotonic() + patience(seconds)
        while not condition():
            said = "\n".join(f"{log}: {log.read_text()[-1500:]}" for log in tmp_path.glob("*.log"))
            assert time.monotonic() < end, said
            time.sleep(0.5)

    given = words(mini_root, literate_clip_file, tmp_path / "out", "PromptFL", "CLIENTS", 2, "WAIT", patience(25),
                  "OPTIM.MAX_EPOCH", 4)  # fmt: skip
    try:
        start(
            "link", "flower-superlink", "--ssl-certfile", f"{pem}/server.pem", "--ssl-keyfile", f"{pem}/server.key",
            "--ssl-ca-certfile", f"{pem}/ca.pem", "--port", str(port), "--disable-runtime-dependency-installation",
        )  # fmt: skip
        nodes = [node(0), node(1)]
        until(lambda: (tmp_path / "link0.log").read_text().count("Activated node_id") == 2, 60)
        text = shlex.join(map(str, given))
        run = start(
            "run",
            "flwr",
            "run",
            str(ROOT / "scripts" / "federation"),
            "here",
            "--run-config",
            f'words="{text}"',
            "--stream",
        )
        until(lambda: answered()[:1] == [2], 240)
        os.killpg(nodes[1].pid, signal.SIGKILL)
        until(lambda: 1 in answered(), 240)
        node(1)
        until(lambda: (tmp_path / "out" / "results.json").is_file(), 400)
        run.wait(patience(60))
    finally:
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert answered()[0] == 2
    assert answered()[-1] == 2, answered()  # it is back
    assert list((tmp_path / "kept0").glob("*/client0/round-*"))
    (streamed,) = tmp_path.glob("run*.log")
    assert "round [1/4] 2 of 2 clients" in streamed.read_text()


# --- the authors' code of pFedMoAP ----------------------------------------------------------------------------------------

GATES = {f"gate.{one}.{part}": f"gating.W_{one}.{part}" for one in "qkvo" for part in ("weight", "bias")}
NAMES = {"ctx": "prompt_learner.ctx"} | GATES


def golden(file):
    with np.load(DATA / "leaders" / file) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files if arrays[name].dtype.kind != "U"} | {
            name: arrays[name].tolist() for name in arrays.files if arrays[name].dtype.kind == "U"
        }


@pytest.mark.parametrize("encoder", ["fast", "plain"])
def test_eight_steps_of_a_client_of_the_authors(encoder, literate_clip_file):
    """With three prompts of others; gradients, losses, tensors, logits with and without experts, in float64."""
    theirs = golden("pfedmoap.npz")
    clip = in_double(load_backbone(str(literate_clip_file)).model)
    model = ExpertsCLIP(clip, theirs["names"], n_ctx=4, gate_width=32, gate_heads=4, text_encoder=encoder).double()
    own = model.trainable()
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(theirs[f"start/{NAMES[name]}"])
    model.set_experts(theirs["others"])
    gate = [p for name, p in own.items() if name != "ctx"]
    optimiser = torch.optim.SGD([{"params": [own["ctx"]]}, {"params": gate, "lr": 0.1}], lr=0.02, momentum=0.9,
                                weight_decay=5e-4)  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(8, 5, 3, 32, 32, generator=generator).double()
    labels = torch.randint(0, 6, (8, 5), generator=generator)
    losses = []
    for step, (batch, wanted) in enumerate(zip(images, labels, strict=True)):
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(batch), wanted)
        loss.backward()
        if step == 0:
            for name, tensor in own.items():
                torch.testing.assert_close(tensor.grad, theirs[f"grad/{NAMES[name]}"], rtol=1e-8, atol=1e-12)
        optimiser.step()
        losses.append(loss.item())
    np.testing.assert_allclose(losses, theirs["losses"].numpy(), rtol=1e-10)
    for name, tensor in own.items():
        torch.testing.assert_close(tensor.detach(), theirs[f"after/{NAMES[name]}"], rtol=1e-9, atol=1e-11)
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(model(images[0]), theirs["logits"], rtol=1e-8, atol=1e-9)
        model.set_experts(None)
        torch.testing.assert_close(model(images[0]), theirs["logits_alone"], rtol=1e-8, atol=1e-9)


def test_three_rounds_of_the_authors_server(literate_clip_file, tmp_path, monkeypatch):
    """Four clients of two classes, two experts of others, in float64, from their start, parts, orders of pictures and order
    of selection.

    Their loop runs without what leaks from client to client there: a gate, a momentum and a schedule, and prompts of the
    same round.
    """
    theirs = golden("whole/pfedmoap.npz")
    for name, function in noting_steps([], in_float64=True).items():
        monkeypatch.setattr(PromptTrainer, name, function)
    order = theirs["order"].tolist()
    monkeypatch.setattr(
        "trainers.pfedmoap.trainer.selected",
        lambda taken, client, count, *_: (
            sorted(taken.keys() - {client}, key=order.index)[:count] if client in taken else []
        ),
    )
    root = fidelity_root(tmp_path / "data")
    more = ("CLIENTS", 4, "EXPERTS", 3, "GATE_HEADS", 4, "GATE_WIDTH", 32, "GATE_LR_MULT", 5.0, "CTX_INIT", "", "N_CTX", 4,
            "OPTIM.LR", 0.02, "OPTIM.LR_SCHEDULER", "single_step", "OPTIM.STEPSIZE", "(100,)",
            "DATASET.NUM_SHOTS", 20, "DATALOADER.TRAIN_X.BATCH_SIZE", 4)  # fmt: skip
    server = federation(root, literate_clip_file, tmp_path / "run", "PFedMoAP", *more)
    for trainer in (server, server.link.trainer):
        items = trainer.train_loader_x.dataset.data_source
        place = {"/".join(Path(item.impath).parts[-2:]): i for i, item in enumerate(items)}
        at = [place[name] for name in theirs["names"]]
        trainer.parts = [
            Part(
                tuple(at[i] for i in theirs[f"parts/{k}"]),
                frozenset(items[at[i]].label for i in theirs[f"parts/{k}"].tolist()),
            )
            for k in range(4)
        ]
        with torch.no_grad():
            for name, tensor in {**trainer.shared(), **trainer.private()}.items():
                tensor.copy_(theirs[f"start/{NAMES[name]}"])
                trainer.start[name] = tensor.detach().clone()

    def as_theirs(client, question):
        """The clients' order of pictures for the two epochs of this round."""
        batches = theirs[f"round{question.words['round']}/client{client}/pictures"]
        part = server.parts[client].train
        return iter([torch.tensor([part.index(at[i]) for i in half.flatten().tolist()]) for half in batches.chunk(2)])

    train_client, losses, gates = Client.train, {}, {}

    def noted(self, question):
        orders = as_theirs(self.number, question)
        epoch = self._epoch
        found = losses.setdefault((question.words["round"], self.number), [])
        self._epoch = lambda received: (new := epoch(received), found.extend(new))[0]
        with monkeypatch.context() as patched:
            patched.setattr(torch, "randperm", lambda n: next(orders))
            answer = train_client(self, question)
        gates[question.words["round"], self.number] = self.trainer.private()["gate.q.weight"].detach().clone()
        return answer

    monkeypatch.setattr(Client, "train", noted)
    means, update = [], server.update_lr
    server.update_lr = lambda: (means.append(server.shared()["ctx"].detach().clone()), update())
    server.train()
    for number in range(1, ROUNDS + 1):
        for k in range(4):
            name = f"round{number}/client{k}"
            np.testing.assert_allclose(losses[number, k], theirs[f"{name}/losses"].numpy(), rtol=1e-9)
            torch.testing.assert_close(gates[number, k], theirs[f"{name}/gate"], rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(means[number - 1], theirs[f"round{number}/mean"], rtol=1e-9, atol=1e-11)
        assert server.rounds[number - 1]["accuracy"] == theirs[f"round{number}/accuracies"].mean()
