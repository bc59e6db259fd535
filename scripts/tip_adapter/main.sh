#!/usr/bin/env bash
# Few-shot: main.sh <dataset>[,<dataset> ...] [shots] [config], seeds 1 2 3.
# `bash scripts/tip_adapter/main.sh --help` tells the options and the environment variables.
exec "${PYTHON:-python}" "$(dirname "$0")/../run.py" tip_adapter main "$@"
