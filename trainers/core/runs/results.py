"""Reads results.json and checks that its figures agree with each other."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PERCENTAGES = ("accuracy", "error_rate", "macro_f1", "ece", "base_accuracy", "new_accuracy")
TEMPERATURES = (0.05, 20.0)  # the least and the largest that are ever fitted
LARGEST = 2**20  # bytes


@dataclass(frozen=True)
class Validated:
    """What the validation pictures said of a trained model; None where there were none.

    temperature: that fits their probabilities best. temperature_pictures: their number. reject_below: the probability
    of the likeliest class below which a picture is rejected; reject_below_calibrated: the same at the temperature.
    """

    temperature: float | None = None
    temperature_pictures: int | None = None
    reject_below: float | None = None
    reject_below_calibrated: float | None = None

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> "Validated":
        """What results or an export's configuration hold of it. Raises ValueError for what cannot have been fitted: a
        negative temperature would reverse the ranking."""
        least, largest = TEMPERATURES
        if "temperature" in found and not _is_number(found["temperature"], least, largest):
            said = str(found["temperature"])[:40]
            raise ValueError(f"temperature is {said}, but those fitted lie from {least:g} to {largest:g}")
        for name in ("reject_below", "reject_below_calibrated"):
            if name in found and not _is_number(found[name], 0, 1):
                raise ValueError(f"{name} is {str(found[name])[:40]}, which is no probability")
        return cls(**{name: found.get(name) for name in cls.__dataclass_fields__})

    def known(self) -> dict[str, Any]:
        """What was found, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def read_results(path: Path) -> dict[str, Any]:
    """The results of a finished run. Raises FileNotFoundError, or ValueError with the reason not to believe them."""
    if path.exists() and not path.is_file():
        raise ValueError("it is no file")
    with open(path, "rb") as file:
        text = file.read(LARGEST + 1)
    if len(text) > LARGEST:
        raise ValueError(f"it is larger than {LARGEST >> 10} KiB")
    try:
        found = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"it is no JSON: {error}") from None
    check_results(found)
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("it says something twice")
    return found


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is no number")


def check_results(found: Any) -> None:
    """Raises ValueError, naming the figure, unless `found` has an accuracy and nothing in it contradicts another figure."""
    if not isinstance(found, dict):
        raise ValueError("it holds no figures")
    if "accuracy" not in found:
        raise ValueError("it has no accuracy")
    for name in PERCENTAGES:
        if name in found and not _is_number(found[name], 0, 100):
            raise ValueError(f"{name} is {str(found[name])[:40]}, which is no percentage")
    for name in ("total", "correct", "n_classes"):
        if name in found and not (_is_number(found[name], 0, 2**53) and isinstance(found[name], int)):
            raise ValueError(f"{name} is {str(found[name])[:40]}, which is no count")
    for name in ("shots", "seed", "epochs"):
        if found.get(name) is not None and not (_is_number(found[name], -1, 2**63) and isinstance(found[name], int)):
            raise ValueError(f"{name} is {str(found[name])[:40]}, which is no whole number")
    for name in ("seconds", "train_seconds", "test_seconds"):
        if name in found and not _is_number(found[name], 0, 1e12):
            raise ValueError(f"{name} is {str(found[name])[:40]}, which is no duration")
    Validated.of(found)
    for name in ("trainer", "dataset", "backbone", "backbone_sha256", "text_classes", "subsample_classes"):
        if not isinstance(found.get(name, ""), str):
            raise ValueError(f"{name} is {str(found[name])[:40]}, which is no text")
    for name in ("versions", "identity", "trained", "asked", "config"):
        if not isinstance(found.get(name, {}), dict):
            raise ValueError(f"{name} is {str(found[name])[:40]}, which is no table")
    if found.get("asked", {}).get("split", "test") not in ("val", "test"):
        raise ValueError(f"split is {str(found['asked']['split'])[:40]}, which is neither val nor test")
    if not all(isinstance(version, str) for version in found.get("versions", {}).values()):
        raise ValueError("versions are no text")
    accuracy = found["accuracy"]
    if "error_rate" in found and abs(accuracy + found["error_rate"] - 100) > 0.01:
        raise ValueError(f"accuracy {accuracy:g} and error_rate {found['error_rate']:g} do not make 100")
    if "total" in found and "correct" in found:
        check_counts(accuracy, found["total"], found["correct"], 0.01)


def check_counts(accuracy: float, total: int, correct: int, tolerance: float) -> None:
    """Raises ValueError unless `accuracy`, in percent, is correct / total."""
    if not 0 <= correct <= total or total == 0 or abs(100 * correct / total - accuracy) > tolerance:
        raise ValueError(f"accuracy {accuracy:g} is not {correct} of {total}")


def _is_number(value: Any, low: float, high: float) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return (isinstance(value, int) or math.isfinite(value)) and low <= value <= high
