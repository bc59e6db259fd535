"""MaPLe: multi-modal prompt learning (Khattak, Rasheed, Maaz, Khan, Khan, CVPR 2023)."""

from ..options import HEADS, Method
from .options import MapleOptions

METHODS = (Method("maple", "MaPLe", "MapleCLIP", options=MapleOptions, heads=HEADS, place=44),)
