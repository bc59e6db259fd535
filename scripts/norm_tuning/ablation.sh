#!/usr/bin/env bash
# What each part of the method does: ablation.sh [dataset [shots]], few-shot, seeds 1 2 3.
# `bash scripts/norm_tuning/ablation.sh --help` tells the options and the environment variables.
here="$(dirname "$0")/../.."
own="$here/.venv/bin/python"
[ -z "${PYTHON:-}${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && [ -x "$own" ] && PYTHON="$own"
exec "${PYTHON:-python}" "$here/scripts/run.py" norm_tuning ablation "$@"
