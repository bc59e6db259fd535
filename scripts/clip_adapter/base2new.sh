#!/usr/bin/env bash
# Base-to-new: base2new.sh [dataset[,dataset ...] [seed]]; without a dataset, all eleven.
# `bash scripts/clip_adapter/base2new.sh --help` tells the options and the environment variables.
exec "${PYTHON:-python}" "$(dirname "$0")/../run.py" clip_adapter base2new "$@"
