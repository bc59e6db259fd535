"""Options of GDA."""

from dataclasses import dataclass

from ..core.heads.options import HeadOptions


@dataclass(frozen=True)
class GdaOptions(HeadOptions):
    KEY = "GDA"
