"""Fine-tuning with views of several tiles: rows of pictures of different size learn as if each were alone."""

from typing import Any

import pytest
import torch
from PIL import Image

from argus.core.registry import build
from argus.core.sample import ImagePart, Message, Sample, TextPart
from argus.training.turns import dialogue_ids
from tests.model.test_composed import picture
from tests.model.views.test_composed_views import VIEWS, made


def sample(seed: int, size: tuple[int, int], turns: int) -> Sample:
    messages = []
    for turn in range(turns):
        shown = [ImagePart(picture(seed, size))] if turn == 0 else []
        messages += [Message("user", [*shown, TextPart("How many?")]), Message("assistant", [TextPart(str(turn + 1))])]
    return Sample(str(seed), messages)


@pytest.mark.parametrize("packing", [0, 400])
@pytest.mark.parametrize("name", ["anyres", "nvlm", "4khd"])
def test_a_row_of_several_sizes_learns_as_each_alone(name: str, packing: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = made(name, VIEWS[name], monkeypatch)
    samples = [sample(0, (40, 20), 2), sample(1, (16, 16), 1), sample(2, (30, 75), 2)]
    objective: Any = build("objective", "sft", {"packing": packing})
    objective.bind(model, processor)
    with torch.no_grad():
        together = objective.loss(model, objective.collate(samples))[0]
        losses = []
        for one in samples:
            shown = one.messages[0].content[0]
            for user, assistant in zip(one.messages[::2], one.messages[1::2], strict=True):
                asked = Message("user", [shown, *[p for p in user.content if not isinstance(p, ImagePart)]])
                ids, labels = dialogue_ids(processor, [asked, assistant], [shown.image.size])
                seen = processor.image_processor(shown.image)
                losses.append(model(torch.tensor([ids]), labels=torch.tensor([labels]), **seen).loss)
    torch.testing.assert_close(together, torch.stack(losses).mean(), rtol=1e-3, atol=1e-4)


def test_learned_separators_are_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = made("4khd", VIEWS["4khd"], monkeypatch)
    objective: Any = build("objective", "sft")
    objective.bind(model, processor)
    one = Sample(
        "", [Message("user", [ImagePart(Image.new("RGB", (40, 20))), TextPart("red?")]), Message("assistant", [TextPart("yes")])]
    )
    objective.loss(model, objective.collate([one]))[0].backward()
    assert all(v.grad.abs().sum() > 0 for v in model.model.image_assembly.parameters())
