"""Options of Tip-Adapter-F."""

from dataclasses import dataclass

from ..tip_adapter.options import TipAdapterOptions


@dataclass(frozen=True)
class TipAdapterFOptions(TipAdapterOptions):
    KEY = "TIPADAPTERF"
