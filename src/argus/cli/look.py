"""`argus chat` and `argus look`: one model, one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from argus.cli.examples import examples
from argus.cli.quiet import quiet
from argus.cli.techniques import technique

if TYPE_CHECKING:
    from PIL import Image

MODEL = "argus/tiny-vlm"
KEEP = 0.25
ATTACH = "a technique, with options: fastervlm:keep=0.25; may be given several times"


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(
        epilog=examples(
            'argus chat argus/tiny-vlm photo.png "What colour is the star?"',
            'argus chat argus/tiny-vlm photo.png "How many things are there?" --attach fastervlm:keep=0.25',
        )
    )(chat)
    app.command(
        epilog=examples(
            "argus look objects",
            'argus look photo.png --technique fastervlm --technique fastv --keep 0.1 --question "What is on the table?"',
            "argus look objects --index 7 --technique fastv:layer=1,keep=0.2 --out kept.png",
            "argus look objects --size 384 --search 'zoomeye:smallest=96,words=[yes, no]'",
        )
    )(look)


def chat(
    model: Annotated[str, typer.Argument(help="argus/<name>, a folder, or a name on the Hugging Face Hub")],
    image: Annotated[Path, typer.Argument(help="the picture: PNG, JPEG or WebP")],
    question: Annotated[str, typer.Argument(help="what to ask about it")],
    attach: Annotated[list[str] | None, typer.Option(help=ATTACH)] = None,
    tokens: Annotated[int, typer.Option(min=1, max=4096, help="longest answer in tokens")] = 64,
) -> None:
    """Ask a model one question about a picture."""
    asked = [technique(text) for text in attach or []]
    picture = _read(image)

    from argus.evaluation.alone import Alone
    from argus.evaluation.held import HeldModel
    from argus.methods.attach import attach as attach_technique
    from argus.model.load import load

    quiet()
    loaded, processor = load(model)
    for name, options in asked:
        attach_technique(loaded, name, **options)
    held, item = HeldModel(loaded, processor), _question(picture, question)
    (answer,) = Alone(held).generate([item], held.prompter.prompts([item], options=False), tokens)
    typer.echo(held.tokenizer.decode(answer, skip_special_tokens=True).strip())


def look(
    source: Annotated[str, typer.Argument(metavar="IMAGE|DOMAIN", help="a picture file, or a domain of the world")],
    model: Annotated[str, typer.Option(help="argus/<name>, a folder, or a name on the Hub")] = MODEL,
    techniques: Annotated[
        list[str] | None, typer.Option("--technique", help="name, or name:option=value; may be given several times")
    ] = None,
    keep: Annotated[float, typer.Option(min=0, max=1, help="share of the visual tokens each reducer keeps")] = KEEP,
    question: Annotated[
        str, typer.Option(help="the question, for techniques that read it; a domain brings its own")
    ] = "What is in the picture?",
    search: Annotated[str | None, typer.Option(help="draw the way of a search too: zoomeye:smallest=96")] = None,
    cues: Annotated[
        list[str] | None, typer.Option("--cue", help="what to search for; else the domain's, or what the model names")
    ] = None,
    size: Annotated[int, typer.Option(min=32, max=2048, help="side of the domain's picture in pixels")] = 96,
    index: Annotated[int, typer.Option(min=0, help="which picture of the domain's test split")] = 0,
    out: Annotated[Path, typer.Option(help="the PNG to write")] = Path("look.png"),
) -> None:
    """Draw what techniques keep of a picture, or where a search looks.

    Several stand side by side; kept patches are lit, dropped ones dimmed. A search's visits are numbered boxes.
    """
    asked = [technique(text) for text in techniques or ([] if search else ["fastervlm", "fastv", "random"])]
    picture, question, answer, known = _source(source, index, question, size)

    from argus.core.registry import technique as registered
    from argus.methods.attach import attach as attach_technique
    from argus.model.load import load
    from argus.report.overlay import lit, strip
    from argus.report.seen import seen

    quiet()
    loaded, processor = load(model)
    scale = max(1, 288 // max(picture.size))
    large = picture.resize((picture.width * scale, picture.height * scale), 0)
    shown = [(f"{question}\n{answer}".strip(), large)]
    for name, options in asked:
        share = {"keep": keep} if "keep" in registered(name).load().Options.model_fields else {}  # a decoding method has none
        with attach_technique(loaded, name, **{**share, **options}) as attachment:
            left = seen(loaded, processor, _question(picture, question), [attachment])
        if left is None:
            shown.append((f"{name}: drops no visual tokens", large))
            typer.echo(shown[-1][0])
            continue
        shown.append((f"{name}: {left.kept} of {left.total}", lit(picture, left.indices, left.grid, scale)))
        typer.echo(f"{name}: kept {left.kept} of {left.total} visual tokens")
    if search:
        shown.append(_searched(loaded, processor, _question(picture, question, cues or known), search, scale))
        typer.echo(shown[-1][0])
    out.parent.mkdir(parents=True, exist_ok=True)
    strip(shown).save(out, "PNG")
    typer.echo(out)


def _searched(model: Any, processor: Any, question: Any, search: str, scale: int) -> tuple[str, Image.Image]:
    """What a search found, in words and drawn."""
    from argus.core.registry import build
    from argus.evaluation.local import LocalModel
    from argus.report.overlay import way

    name, options = technique(search)
    if question.sample.metadata["cues"]:
        options = {"cues": "given", **options}
    inferencer = build("inferencer", "search", {"search": {name: options}, "answer": {"generate": {"max_new_tokens": 64}}})
    (answer,) = inferencer.answer(LocalModel(model, processor), [question])
    found = answer.notes["search"]
    cues = ", ".join(found["cues"]) or "nothing named"
    caption = f"{name} for {cues}: {len(found['visited'])} visits, {found['looks']} looks. {answer.text}"
    return caption, way(question.images[0], found["visited"], found["boxes"], scale)


def _question(picture: Image.Image, text: str, cues: Sequence[str] = ()) -> Any:
    from argus.core.sample import ImagePart, Message, Sample, TextPart
    from argus.evaluation.inferencers.base import Question

    sample = Sample("question", [Message("user", [ImagePart(picture), TextPart(text)])], metadata={"cues": tuple(cues)})
    return Question("question", sample, [picture])


def _read(path: Path) -> Image.Image:
    from argus.core.images import load_image

    return load_image(path)


def _source(source: str, index: int, question: str, size: int) -> tuple[Image.Image, str, str, Sequence[str]]:
    """The picture, what to ask, the right answer if it is known, and the cues that come with the question."""
    from argus.core.registry import build, components

    if source not in {row.name for row in components("domain")}:
        return _read(Path(source)), question, "", ()
    from PIL import Image

    drawing = build("domain", source).draw("test", index, size)
    first = next((q for q in drawing.questions if q.options), None)
    text, answer, cues = (first.text, f"({first.answer})", first.cues) if first else (question, "", ())
    return Image.fromarray(drawing.pixels), text, answer, cues
