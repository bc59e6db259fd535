"""CoPrompt: MaPLe with adapters, held to CLIP's features of sentences and of second views (Roy, Etemad, ICLR 2024)."""

from ..options import Method
from .options import CoPromptOptions

METHODS = (Method("coprompt", "CoPrompt", "CoPromptCLIP", options=CoPromptOptions, place=44, settings_by_dataset=True),)
