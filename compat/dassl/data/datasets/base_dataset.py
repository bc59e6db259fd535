"""Datum and DatasetBase."""

import random
from collections import defaultdict
from typing import Any


class Datum:
    """One picture: its path, label, domain number and class name (read-only)."""

    def __init__(self, impath: str = "", label: int = 0, domain: int = 0, classname: str = "") -> None:
        self._impath, self._label, self._domain, self._classname = impath, label, domain, classname

    @property
    def impath(self) -> str:
        return self._impath

    @property
    def label(self) -> int:
        return self._label

    @property
    def domain(self) -> int:
        return self._domain

    @property
    def classname(self) -> str:
        return self._classname


class DatasetBase:
    """Lists of Datum for training (labelled, unlabelled), validation and testing."""

    dataset_dir = ""
    domains: list[str] = []

    def __init__(
        self,
        train_x: list[Datum],
        train_u: list[Datum] | None = None,
        val: list[Datum] | None = None,
        test: list[Datum] | None = None,
    ) -> None:
        self._train_x, self._train_u, self._val, self._test = train_x, train_u, val, test
        self._num_classes = self.get_num_classes(train_x)
        self._lab2cname, self._classnames = self.get_lab2cname(train_x)

    @property
    def train_x(self) -> list[Datum]:
        return self._train_x

    @property
    def train_u(self) -> list[Datum] | None:
        return self._train_u

    @property
    def val(self) -> list[Datum] | None:
        return self._val

    @property
    def test(self) -> list[Datum] | None:
        return self._test

    @property
    def lab2cname(self) -> dict[int, str]:
        return self._lab2cname

    @property
    def classnames(self) -> list[str]:
        """Class names in label order."""
        return self._classnames

    @property
    def num_classes(self) -> int:
        return self._num_classes

    @staticmethod
    def get_num_classes(data_source: list[Datum]) -> int:
        return 1 + max(item.label for item in data_source)

    @staticmethod
    def get_lab2cname(data_source: list[Datum]) -> tuple[dict[int, str], list[str]]:
        mapping = {item.label: item.classname for item in data_source}
        return mapping, [mapping[label] for label in sorted(mapping)]

    def check_input_domains(self, source_domains: list[str], target_domains: list[str]) -> None:
        """Raises ValueError unless both lists hold known domains."""
        for kind, names in (("source", source_domains), ("target", target_domains)):
            if not names:
                raise ValueError(f"no {kind} domain was given; known: {', '.join(self.domains)}")
            for name in names:
                if name not in self.domains:
                    raise ValueError(f'{kind} domain "{name}" is unknown; known: {", ".join(self.domains)}')

    def generate_fewshot_dataset(self, *data_sources: list[Datum], num_shots: int = -1, repeat: bool = False) -> Any:
        """Draws `num_shots` pictures of each class from each list, with python's global random state.

        Classes come in order of first appearance; a class with fewer pictures gives all it has (with `repeat`, draws
        with replacement). num_shots < 1 changes nothing. One list in, one list out; several in, several out.
        """
        if num_shots < 1:
            return data_sources[0] if len(data_sources) == 1 else data_sources
        print(f"Creating a {num_shots}-shot dataset")
        drawn = []
        for source in data_sources:
            few: list[Datum] = []
            for items in self.split_dataset_by_label(source).values():
                if len(items) >= num_shots:
                    few += random.sample(items, num_shots)
                else:
                    few += random.choices(items, k=num_shots) if repeat else items
            drawn.append(few)
        return drawn[0] if len(drawn) == 1 else drawn

    def split_dataset_by_label(self, data_source: list[Datum]) -> dict[int, list[Datum]]:
        return self._grouped(data_source, "label")

    def split_dataset_by_domain(self, data_source: list[Datum]) -> dict[int, list[Datum]]:
        return self._grouped(data_source, "domain")

    @staticmethod
    def _grouped(data_source: list[Datum], attribute: str) -> dict[int, list[Datum]]:
        groups = defaultdict(list)
        for item in data_source:
            groups[getattr(item, attribute)].append(item)
        return groups
