#!/usr/bin/env bash
# Cross-dataset: xd.sh [source [targets ...]]; without a source, ImageNet and the ten others.
# `bash scripts/mocoop_plus/xd.sh --help` tells the options and the environment variables.
exec "${PYTHON:-python}" "$(dirname "$0")/../run.py" mocoop_plus xd "$@"
