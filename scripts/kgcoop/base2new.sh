#!/usr/bin/env bash
# Base-to-new: base2new.sh [dataset[,dataset ...] [seed]]; without a dataset, all eleven.
# `bash scripts/kgcoop/base2new.sh --help` tells the options and the environment variables.
exec "${PYTHON:-python}" "$(dirname "$0")/../run.py" kgcoop base2new "$@"
