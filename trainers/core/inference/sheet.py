"""A page with pictures and what they show, that loads nothing from anywhere."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from ..loading.read import read_picture
from .model import Prediction, TrainedModel

EDGE = 224  # pixels of a picture on the page, at most


def sheet(found: Sequence[Prediction], model: TrainedModel) -> str:
    """The page, as HTML."""
    from jinja2 import Environment, FileSystemLoader

    shown = [(p, _embedded(p.picture, model.upright)) for p in found]
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    return environment.get_template("sheet.html.j2").render(shown=shown, model=model)


def _embedded(path: str, upright: bool) -> str:
    picture = read_picture(path, upright)
    picture.thumbnail((EDGE, EDGE))
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
