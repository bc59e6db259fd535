"""CLIP-SVD: the singular values of both towers' matrices are trained (Koleilat, Rivaz, Xiao, 2025)."""

from ..options import Method
from .options import ClipSvdOptions

METHODS = (Method("clip_svd", "CLIPSVD", "SvdCLIP", "CLIP-SVD", ClipSvdOptions, place=48, templates=("TEMPLATE",)),)
