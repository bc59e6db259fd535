"""A page where one drops a picture and sees what a trained run makes of it: classes, probabilities, experts.

    python scripts/explore.py output/mocoop/.../seed1

It answers this machine alone (127.0.0.1), loads nothing from elsewhere, and ends with Ctrl-C. Needs flask:
pip install -e .[explore]
"""

import argparse
import io
import logging
import sys
from pathlib import Path
from typing import Any

from trainers.components.pictures import UNDECODABLE, read_picture
from trainers.core.errors import one_line
from trainers.use import TrainedModel, checked_names, open_model

PAGE = Path(__file__).with_name("explore.html.j2")
LARGEST = 2**26  # bytes of a picture


def application(model: TrainedModel, top: int) -> Any:
    """The page, as a Flask application."""
    from flask import Flask, jsonify, render_template_string, request

    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = LARGEST
    models: dict[tuple[str, ...], TrainedModel] = {tuple(model.classnames): model}

    @app.before_request
    def refuse_other_hosts() -> Any:
        """A page elsewhere that calls itself by this address must not read answers here."""
        if request.host.rpartition(":")[0] not in ("127.0.0.1", "localhost"):
            return "this page answers 127.0.0.1 alone", 403
        return None

    @app.get("/")
    def page() -> str:
        return render_template_string(PAGE.read_text(), model=model)

    @app.post("/classify")
    def classify() -> Any:
        words, file = request.form.get("classnames", ""), request.files.get("picture")
        if file is None:
            return jsonify(error="Give a picture first."), 400
        try:
            asked = checked_names(words.split(",")) if words.strip() else model.classnames
            if tuple(asked) not in models:
                models[tuple(asked)] = model.with_classes(asked)
            picture = read_picture(io.BytesIO(file.read()), model.upright)
            (found,) = models[tuple(asked)].classify(picture, top)
        except UNDECODABLE as error:
            reason = "This is no picture." if "cannot identify" in str(error) else one_line(error)
            return jsonify(error=reason), 400
        return jsonify(classes=found.classes, experts=found.experts)

    return app


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="folder of a finished run, or of an export")
    parser.add_argument("--top", type=int, default=5, help="classes shown (default: 5)")
    parser.add_argument("--port", type=int, default=7860, help="default: 7860")
    parser.add_argument("--epoch", type=int, help="which epoch's model (default: the best on validation, or the last)")
    parser.add_argument("--backbone", default="", help="the backbone's file, where it lies elsewhere now")
    args = parser.parse_args()
    try:
        from werkzeug.serving import make_server

        app = application(open_model(args.run, args.epoch, args.backbone), args.top)
        server = make_server("127.0.0.1", args.port, app)
    except ModuleNotFoundError as error:
        print(f"error: the page needs the package {error.name}: pip install flask", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 1
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    print(f"Open http://127.0.0.1:{args.port}/ (Ctrl-C ends it)", flush=True)
    server.serve_forever()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(0)
