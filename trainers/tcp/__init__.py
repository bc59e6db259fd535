"""TCP: textual-based class-aware prompt tuning (Yao, Zhang, Xu, CVPR 2024)."""

from ..options import HEADS, Method
from .options import TcpOptions

METHODS = (Method("tcp", "TCP", "TcpCLIP", options=TcpOptions, heads=HEADS, place=34),)
