"""A page where one drops a picture and sees what a trained run makes of it: classes, probabilities, experts.

    python scripts/explore.py output/mocoop/.../seed1

It answers this machine alone (127.0.0.1), and ends with Ctrl-C. Needs gradio: pip install -e .[explore]
"""

import argparse
import os
import sys
from typing import Any

from trainers.core.errors import one_line
from trainers.use import TrainedModel, checked_names, open_model


def page(model: TrainedModel, top: int) -> Any:
    """The page, not started yet."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # it would call home
    import gradio as gr

    models: dict[tuple[str, ...], TrainedModel] = {tuple(model.classnames): model}

    def answer(path: str | None, words: str) -> tuple[Any, ...]:
        if not path:
            raise gr.Error("Give a picture first.")
        try:
            asked = checked_names(words.split(",")) if words.strip() else model.classnames
            if tuple(asked) not in models:
                models[tuple(asked)] = model.with_classes(asked)
            (found,) = models[tuple(asked)].classify(path, top)
        except (ValueError, OSError, SyntaxError) as error:
            raise gr.Error(one_line(error)) from None
        shown = (dict(found.classes),)
        return (*shown, dict(found.experts)) if model.experts else shown

    plain = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"])  # fonts that are here already
    with gr.Blocks(title=f"{model.method}: explore", analytics_enabled=False) as made:
        gr.Markdown(f"# {model.method}\n{len(model.classnames)} classes, backbone {model.trained.identity['backbone']}")
        with gr.Row():
            with gr.Column(min_width=280):
                # image_mode None: the file itself, not a copy that was converted on the way
                picture = gr.Image(type="filepath", image_mode=None, label="Picture", sources=["upload", "clipboard"],
                                   height=320)  # fmt: skip
                words = gr.Textbox(
                    label="Other class names",
                    placeholder="red panda, okapi",
                    info="with commas; empty: those of training",
                )
                go = gr.Button("Classify", variant="primary")
            with gr.Column(min_width=280):
                outputs = [gr.Label(label="Classes", num_top_classes=top)]
                if model.experts:
                    outputs.append(gr.Label(label="Experts and their templates"))
        gr.on([go.click, words.submit, picture.upload], answer, [picture, words], outputs, api_name="classify")
    made.theme_of_page = plain
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="folder of a finished run, or of an export")
    parser.add_argument("--top", type=int, default=5, help="classes shown (default: 5)")
    parser.add_argument("--port", type=int, help="default: the first free one from 7860 on")
    parser.add_argument("--epoch", type=int, help="which epoch's model (default: the best on validation, or the last)")
    parser.add_argument("--backbone", default="", help="the backbone's file, where it lies elsewhere now")
    args = parser.parse_args()
    try:
        model = open_model(args.run, args.epoch, args.backbone)
        made = page(model, args.top)
        made.launch(server_name="127.0.0.1", server_port=args.port, share=False, theme=made.theme_of_page, quiet=False)
    except ModuleNotFoundError as error:
        print(f"error: the page needs the package {error.name}: pip install gradio", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
