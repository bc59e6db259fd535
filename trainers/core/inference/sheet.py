"""Pages with pictures and what they show, that load nothing from anywhere."""

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..loading.read import UNDECODABLE, read_picture

EDGE = 200  # pixels of a picture on the page, at most
A_PAGE = 200  # pictures, which make 2 MB or so


@dataclass(frozen=True)
class Shown:
    """A picture on a page. classes: (name, probability), likeliest first. truth: its class, "" for none of the model's,
    None where it is not known."""

    picture: str
    classes: list[tuple[str, float]]
    experts: list[tuple[str, float]]
    truth: str | None = None
    rejected: bool = False

    @property
    def is_right(self) -> bool:
        """Whether its class was found, or it is of none and was rejected."""
        return self.rejected if self.truth == "" else self.truth == self.classes[0][0]


def files_of(path: Path, pictures: int) -> list[Path]:
    """The files of so many pictures' pages."""
    return [path, *(path.with_name(f"{path.stem}-{n}{path.suffix}") for n in range(2, -(-pictures // A_PAGE) + 1))]


def pages(path: Path, shown: Sequence[Shown], title: str, about: str, upright: bool) -> Iterator[tuple[Path, str]]:
    """(file, HTML) of each page: `path`, and beside it name-2, name-3, ... where there are more than A_PAGE pictures.

    A picture that cannot be read has its name alone. upright: whether pictures are turned as EXIF says."""
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    template = environment.get_template("sheet.html.j2")
    files = files_of(path, len(shown))
    for n, file in enumerate(files):
        own = [(s, embedded(s.picture, upright)) for s in shown[n * A_PAGE : (n + 1) * A_PAGE]]
        yield file, template.render(shown=own, title=title, about=about, files=[f.name for f in files], here=file.name)


def embedded(path: str, upright: bool) -> str:
    """A picture, made small, as a data: address; an empty one where it cannot be read."""
    try:
        picture = read_picture(path, upright)
    except UNDECODABLE:
        return ""
    picture.thumbnail((EDGE, EDGE))
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
