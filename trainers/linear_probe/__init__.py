"""Linear probe: logistic regression on frozen image features (Radford et al., 2021)."""

from ..options import Method
from .options import LinearProbeOptions

METHODS = (
    Method(
        "linear_probe", "LinearProbe", "ProbedCLIP", "Linear probe", LinearProbeOptions, takes_steps=False,
        reads_names=False, knows_new_classes=False, chooses_on_validation=True, place=20, recipes_of="ZeroshotCLIP",
    ),
)  # fmt: skip
