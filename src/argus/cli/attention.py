"""`argus attention`: where a model's attention on the picture lies, in the language model and in the encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from argus.cli.examples import examples
from argus.cli.quiet import quiet


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(
        epilog=examples("argus attention objects", "argus attention documents --model llava-hf/llava-1.5-7b-hf --pictures 20")
    )(attention)


def attention(
    domain: Annotated[str, typer.Argument(help="a domain of the world, whose test pictures and questions are asked")] = "objects",
    model: Annotated[str, typer.Option(help="argus/<name>, a folder, or a name on the Hub")] = "argus/tiny-vlm",
    pictures: Annotated[int, typer.Option(min=1, max=2000, help="pictures to average over")] = 100,
    size: Annotated[int, typer.Option(min=32, max=1024, help="side of each picture in pixels")] = 96,
    out: Annotated[Path, typer.Option(help="the PNG to write")] = Path("attention.png"),
) -> None:
    """Plot where attention on the picture lies, layer by layer.

    FasterVLM (arXiv 2412.01818) found two things wrong with text-to-image attention, and both are drawn.

    Shift: attention of the last prompt token by the place of a visual token in the sequence, with Spearman's correlation
    per layer. Dispersion: how many tokens hold how much of it.
    """
    import torch

    from argus.core.images import load_image
    from argus.core.progress import track
    from argus.core.registry import build
    from argus.evaluation.inferencers.base import Question
    from argus.evaluation.prompts import Prompter
    from argus.evaluation.scenarios.world import to_samples
    from argus.methods.reduction.diagnostics import attention_curves, spearman
    from argus.model.load import load
    from argus.report.attention import attention_figure
    from argus.report.theme import save_png, style

    quiet()
    world = build("domain", domain)
    loaded, processor = load(model)
    prompter = Prompter(processor)
    found = []
    for index in track(range(pictures), "pictures", total=pictures):
        (sample,) = to_samples(world.draw("test", index, size, 1), domain)
        question = Question(sample.id, sample, [load_image(sample.images()[0])])
        inputs = processor(images=question.images, text=prompter.text(question), return_tensors="pt").to(loaded.device)
        found.append(attention_curves(loaded, inputs))
    last = torch.stack([c.last for c in found]).mean(0)  # (layers, N)
    encoder = torch.stack([c.encoder for c in found]).mean(0)  # (N,)
    spread = {name: torch.stack([c.dispersion()[name] for c in found]).mean(0).numpy() for name in ("last", "encoder")}
    with style():
        save_png(attention_figure(last.numpy(), encoder.numpy(), spread), out)
    typer.echo("correlation with the place in the sequence (Spearman):")
    typer.echo("  last token, per layer: " + " ".join(f"{v:+.2f}" for v in spearman(last).tolist()))
    typer.echo(f"  last token, mean of all layers: {float(spearman(last.mean(0))):+.2f}")
    typer.echo(f"  encoder: {float(spearman(encoder)):+.2f}")
    quarter = max(1, len(encoder) // 4) - 1
    shares = ", ".join(f"{name} {curve[quarter]:.0%}" for name, curve in spread.items())
    typer.echo(f"share of the attention in a quarter of the tokens: {shares}")
    typer.echo(out)
