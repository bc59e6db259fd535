#!/usr/bin/env bash
# What each part of the method does: ablation.sh [dataset [shots]], few-shot, seeds 1 2 3.
# `bash scripts/mocoop_plus/ablation.sh --help` tells the options and the environment variables.
exec "${PYTHON:-python}" "$(dirname "$0")/../run.py" mocoop_plus ablation "$@"
