"""PLOT++: several prompts for each class and picture, matched by optimal transport (Chen et al., ICLR 2023)."""

from ..options import Method
from .options import PlotOptions

METHODS = (Method("plot_plus_plus", "PLOTPP", "PlotCLIP", "PLOT++", PlotOptions, place=49),)
