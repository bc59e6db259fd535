#!/usr/bin/env bash
# What each part of the method does: ablation.sh [dataset [shots]], few-shot, seeds 1 2 3.
# `bash scripts/mocoop/ablation.sh --help` tells the options and the environment variables.
here="$(dirname "$0")/../.."
[ -z "${PYTHON:-}${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && [ -x "$here/.venv/bin/python" ] && PYTHON="$here/.venv/bin/python"
exec "${PYTHON:-python}" "$here/scripts/run.py" mocoop ablation "$@"
