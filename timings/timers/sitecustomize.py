"""Where the time of a run goes; on PYTHONPATH, Python imports this before anything else. Used by bench_sweep.py alone.

Waits until training/trainer.py of trainers/core/ has been imported, then times the calls that matter, and
writes the seconds of each finished run into a file of MOCOOP_TIMES: "start" (until the trainer is built),
"pictures" (waiting for them), "encode" and "text" (the two encoders, forward and backward), "total".
"""

import functools
import importlib.abc
import importlib.util
import json
import os
import sys
import time
from pathlib import Path

SPENT = dict.fromkeys(("start", "pictures", "encode", "text"), 0.0)
_inside = []  # names of what is being timed now; what is within something else belongs to that


def spend(name, function):
    """`function`, its time added to `name`; backward, from when the gradient of its result is known, as well."""

    @functools.wraps(function)
    def timed(*args, **kwargs):
        begin, outer = time.perf_counter(), not _inside
        _inside.append(name)
        try:
            result = function(*args, **kwargs)
        finally:
            _inside.pop()
            if outer:
                SPENT[name] += time.perf_counter() - begin
        if getattr(result, "requires_grad", False):
            result.register_hook(lambda gradient: _turn(name))
        return result

    return timed


_backward = {"of": "", "since": 0.0}


def _turn(name):
    """From here on the backward pass works on `name`."""
    now = time.perf_counter()
    if _backward["of"]:
        SPENT[_backward["of"]] += now - _backward["since"]
    _backward.update(of=name, since=now)


def backward_timed(function):
    @functools.wraps(function)
    def timed(*args, **kwargs):
        _turn("")
        result = function(*args, **kwargs)
        _turn("")
        return result

    return timed


def since_birth():
    """Seconds since this process was started, or forked."""
    ticks = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
    return float(Path("/proc/uptime").read_text().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")


def install(trainer):
    import torch
    from torch.utils.data.dataloader import _BaseDataLoaderIter

    from trainers.core.clip.backbones.openai import OpenAIBackbone
    from trainers.core.clip.text_tower import TextEncoder
    from trainers.core.runs.folder import RunFolder

    OpenAIBackbone.encode_image = spend("encode", OpenAIBackbone.encode_image)
    TextEncoder.forward = spend("text", TextEncoder.forward)
    _BaseDataLoaderIter.__next__ = spend("pictures", _BaseDataLoaderIter.__next__)
    torch.Tensor.backward = backward_timed(torch.Tensor.backward)
    build, finish = trainer.PromptTrainer.build_data_loader, RunFolder.finish

    def built(self):
        SPENT["start"] = since_birth()
        return build(self)

    def finished(self, results):
        finish(self, results)
        record = SPENT | {"total": since_birth(), "run": str(self.path), "trainer": results["trainer"]}
        Path(os.environ["MOCOOP_TIMES"], f"{os.getpid()}-{time.time_ns()}.json").write_text(json.dumps(record))

    trainer.PromptTrainer.build_data_loader, RunFolder.finish = built, finished


class After(importlib.abc.MetaPathFinder):
    """Calls install() once the module it waits for has been imported."""

    def find_spec(self, name, path, target=None):
        if name != "trainers.core.training.trainer":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module

        def run_and_install(module):
            run(module)
            install(module)

        spec.loader.exec_module = run_and_install
        return spec


if "MOCOOP_TIMES" in os.environ:
    sys.meta_path.insert(0, After())
