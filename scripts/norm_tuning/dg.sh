#!/usr/bin/env bash
# Domain generalisation: dg.sh [source [targets ...]]; without a source, ImageNet and its four variants.
# `bash scripts/norm_tuning/dg.sh --help` tells the options and the environment variables.
here="$(dirname "$0")/../.."
own="$here/.venv/bin/python"
[ -z "${PYTHON:-}${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && [ -x "$own" ] && PYTHON="$own"
exec "${PYTHON:-python}" "$here/scripts/run.py" norm_tuning dg "$@"
