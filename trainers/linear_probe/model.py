"""Linear probe: logistic regression on frozen image features (Radford et al., 2021, appendix A.3)."""

from ..core.heads.model import LinearHeadCLIP


class ProbedCLIP(LinearHeadCLIP):
    """CLIP's image encoder with a linear classifier on its features, which are not normalised."""

    normalizes = False
    called = "a linear probe"
