"""All benchmarks, one process each: make bench."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ORDER = ["text_encoder", "training_step", "evaluation", "cocoop", "memory", "growth", "backbones", "options"]


def main() -> int:
    # large tensors are page-fault bound with the allocator's usual thresholds
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "8589934592"}
    failed = [n for n in ORDER if subprocess.run([sys.executable, HERE / f"bench_{n}.py"], env=environment).returncode]
    if failed:
        print(f"error: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
