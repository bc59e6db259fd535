"""The apps that Flower takes to a SuperLink and its SuperNodes; each has a checkout, installed by pip install -e ."""

import sys

from mocoop.paths import ROOT

sys.path.insert(0, str(ROOT))
import trainers  # noqa: F401  (makes `dassl` importable)
from trainers.core.federated.flower import client_app as client
from trainers.core.federated.flower import server_app as server

__all__ = ["client", "server"]
