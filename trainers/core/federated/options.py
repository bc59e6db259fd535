"""Options that all federated methods have."""

from dataclasses import dataclass

from ...options import Options, option


@dataclass(frozen=True)
class FederationOptions(Options):
    """Who takes part, with which pictures. The rounds are OPTIM.MAX_EPOCH."""

    clients: int = option(10, "clients, each with a part of the training pictures", least=1, most=10_000)
    participation: float = option(1.0, "share of the clients that train in a round", above=0, most=1)
    local_epochs: int = option(5, "passes that a client makes over its own pictures in a round", least=1)
    partition: str = option(
        "classes",
        "what tells clients apart: classes (each has its own), dirichlet (each has another share of every class), domains",
        among=("classes", "dirichlet", "domains"),
    )
    concentration: float = option(
        0.5, "of the Dirichlet distribution of shares", above=0, needs={"partition": ("dirichlet",)}
    )
    wait: float = option(3600.0, "seconds that a round waits for answers", above=0)
