#!/usr/bin/env bash
# Base-to-new: base2new.sh [dataset[,dataset ...] [seed]]; without a dataset, all eleven.
# `bash scripts/clip_adapter/base2new.sh --help` tells the options and the environment variables.
here="$(dirname "$0")/../.."
[ -z "${PYTHON:-}${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && [ -x "$here/.venv/bin/python" ] && PYTHON="$here/.venv/bin/python"
exec "${PYTHON:-python}" "$here/scripts/run.py" clip_adapter base2new "$@"
