#!/usr/bin/env bash
# Domain generalisation: dg.sh [source [targets ...]]; without a source, ImageNet and its four variants.
# `bash scripts/mocoop_plus/dg.sh --help` tells the options and the environment variables.
exec "${PYTHON:-python}" "$(dirname "$0")/../run.py" mocoop_plus dg "$@"
