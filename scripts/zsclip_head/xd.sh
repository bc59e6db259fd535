#!/usr/bin/env bash
# Cross-dataset: xd.sh [source [targets ...]]; without a source, ImageNet and the ten others.
# `bash scripts/zsclip_head/xd.sh --help` tells the options and the environment variables.
exec "${PYTHON:-python}" "$(dirname "$0")/../run.py" zsclip_head xd "$@"
