#!/usr/bin/env bash
# Cross-dataset: xd.sh [source [targets ...]]; without a source, ImageNet and the ten others.
# `bash scripts/lasp/xd.sh --help` tells the options and the environment variables.
here="$(dirname "$0")/../.."
[ -z "${PYTHON:-}${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && [ -x "$here/.venv/bin/python" ] && PYTHON="$here/.venv/bin/python"
exec "${PYTHON:-python}" "$here/scripts/run.py" lasp xd "$@"
