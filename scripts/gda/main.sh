#!/usr/bin/env bash
# Few-shot: main.sh <dataset>[,<dataset> ...] [shots] [config], seeds 1 2 3.
# `bash scripts/gda/main.sh --help` tells the options and the environment variables.
here="$(dirname "$0")/../.."
[ -z "${PYTHON:-}${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && [ -x "$here/.venv/bin/python" ] && PYTHON="$here/.venv/bin/python"
exec "${PYTHON:-python}" "$here/scripts/run.py" gda main "$@"
