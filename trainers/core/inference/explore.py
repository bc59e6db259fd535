"""A page where one drops a picture and sees what a trained run makes of it: classes, probabilities, experts.

    python scripts/explore.py output/fewshot/demo/shots_16/MoCoOp/small/seed1

It answers this machine alone (127.0.0.1), loads nothing from elsewhere, and ends with Ctrl-C. Needs flask and waitress:
pip install -e .[explore]
"""

import argparse
import functools
import io
import sys
import threading
from pathlib import Path
from typing import Any

from ..loading.read import UNDECODABLE, read_picture
from ..settings.errors import one_line
from . import TrainedModel, checked_names, open_model

PAGE = Path(__file__).with_name("explore.html.j2")
LARGEST = 2**26  # bytes of a picture
MOST_NAMES = 1000  # ViT-B/16 encodes as many in half a minute on a CPU
SILENCE = 20  # seconds that a connection may pause inside a request


def application(model: TrainedModel, top: int, port: int) -> Any:
    """The page, as a Flask application for http://127.0.0.1:<port>. Pictures are classified one at a time."""
    from flask import Flask, jsonify, render_template_string, request

    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = LARGEST
    hosts = [name if port == 80 else f"{name}:{port}" for name in ("127.0.0.1", "localhost")]
    computing = threading.Lock()

    @functools.lru_cache(maxsize=8)
    def knowing(names: tuple[str, ...]) -> TrainedModel:
        return model.with_classes(list(names))

    @app.before_request
    def refuse_strangers() -> Any:
        """Refuses other websites: they must not read answers here under this address (DNS rebinding), nor post to
        it."""
        if request.host not in hosts:
            return "this page answers 127.0.0.1 alone", 403
        if request.headers.get("Origin", f"http://{hosts[0]}") not in [f"http://{host}" for host in hosts]:
            return "this page answers its own requests alone", 403
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
            asked = checked_names(words.split(",")) if words.strip() else None
            if asked and len(asked) > MOST_NAMES:
                raise ValueError(
                    f"{len(asked):,} names are too many for this page: predict.py --classnames takes any number"
                )
            picture = read_picture(io.BytesIO(file.read()), model.upright)
            with computing:
                (found,) = (knowing(tuple(asked)) if asked else model).classify(picture, top)
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
        if args.top < 1:
            raise ValueError(f"--top is {args.top}: use a number from 1 on")
        if not 1 <= args.port <= 65535:
            raise ValueError(f"--port is {args.port}: use a number from 1 to 65535")
        from waitress.server import create_server

        app = application(open_model(args.run, args.epoch, args.backbone), args.top, args.port)
        server = create_server(
            app, host="127.0.0.1", port=args.port, channel_timeout=SILENCE, max_request_body_size=LARGEST
        )
    except ModuleNotFoundError as error:
        print(f"error: the page needs the package {error.name}: pip install -e .[explore]", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 1
    print(f"Open http://127.0.0.1:{args.port}/ (Ctrl-C ends it)", flush=True)
    server.run()
    return 0
