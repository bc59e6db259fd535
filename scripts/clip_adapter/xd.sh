#!/usr/bin/env bash
# Cross-dataset: xd.sh [source [targets ...]]; without a source, ImageNet and the ten others.
# `bash scripts/clip_adapter/xd.sh --help` tells the options and the environment variables.
exec "${PYTHON:-python}" "$(dirname "$0")/../run.py" clip_adapter xd "$@"
