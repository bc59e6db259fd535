"""Benchmarks on the virtual GPU, with a small CLIP in the place of ViT-B/16's: benches.py [TINY_CLIP]."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "timings"), str(HERE.parents[1])]

import gpu  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)
gpu.install()

import common  # noqa: E402

from trainers.core.clip.backbones.openai import build_model  # noqa: E402

state = torch.load(sys.argv[1])
common.vit_b16 = lambda: build_model(state).float().eval().requires_grad_(False).to(common.DEVICE)
common.classnames = lambda count: [f"cat {i}" for i in range(min(count, 5))]
common.report = lambda name, *rest, **more: print(name)

import bench_growth  # noqa: E402
import bench_memory  # noqa: E402
import bench_text_encoder  # noqa: E402

bench_growth.main()
bench_text_encoder.vit_b16_sizes()
bench_text_encoder.small_sizes()
print(bench_memory.measure(5, 5, "fast", 256)["gradient"])
