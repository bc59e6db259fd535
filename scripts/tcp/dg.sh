#!/usr/bin/env bash
# Domain generalisation: dg.sh [source [targets ...]]; without a source, ImageNet and its four variants.
# `bash scripts/tcp/dg.sh --help` tells the options and the environment variables.
here="$(dirname "$0")/../.."
[ -z "${PYTHON:-}${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && [ -x "$here/.venv/bin/python" ] && PYTHON="$here/.venv/bin/python"
exec "${PYTHON:-python}" "$here/scripts/run.py" tcp dg "$@"
