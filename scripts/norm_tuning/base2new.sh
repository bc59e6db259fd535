#!/usr/bin/env bash
# Base-to-new: base2new.sh [dataset[,dataset ...] [seed]]; without a dataset, all eleven.
# `bash scripts/norm_tuning/base2new.sh --help` tells the options and the environment variables.
here="$(dirname "$0")/../.."
own="$here/.venv/bin/python"
[ -z "${PYTHON:-}${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && [ -x "$own" ] && PYTHON="$own"
exec "${PYTHON:-python}" "$here/scripts/run.py" norm_tuning base2new "$@"
