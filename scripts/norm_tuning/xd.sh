#!/usr/bin/env bash
# Cross-dataset: xd.sh [source [targets ...]]; without a source, ImageNet and the ten others.
# `bash scripts/norm_tuning/xd.sh --help` tells the options and the environment variables.
here="$(dirname "$0")/../.."
own="$here/.venv/bin/python"
[ -z "${PYTHON:-}${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && [ -x "$own" ] && PYTHON="$own"
exec "${PYTHON:-python}" "$here/scripts/run.py" norm_tuning xd "$@"
