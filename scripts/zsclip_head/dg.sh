#!/usr/bin/env bash
# Domain generalisation: dg.sh [source [targets ...]]; without a source, ImageNet and its four variants.
# `bash scripts/zsclip_head/dg.sh --help` tells the options and the environment variables.
exec "${PYTHON:-python}" "$(dirname "$0")/../run.py" zsclip_head dg "$@"
