#!/usr/bin/env bash
# Few-shot: main.sh <dataset>[,<dataset> ...] [shots] [config], seeds 1 2 3.
# `bash scripts/norm_tuning/main.sh --help` tells the options and the environment variables.
here="$(dirname "$0")/../.."
own="$here/.venv/bin/python"
[ -z "${PYTHON:-}${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && [ -x "$own" ] && PYTHON="$own"
exec "${PYTHON:-python}" "$here/scripts/run.py" norm_tuning main "$@"
