"""A small stand-in for Dassl (Zhou et al., "Domain Adaptive Ensemble Learning", 2021), used where Dassl is absent.

It offers the part of Dassl's interface on which CoOp-style trainers stand (names, hooks, configuration keys, log lines,
checkpoint layout, random draws, learning rates) and runs on current PyTorch. Where Dassl itself is installed, Python
finds that instead and nothing here is imported.
"""

__version__ = "compat"
