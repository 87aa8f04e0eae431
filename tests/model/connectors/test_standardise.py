"""A standardised start: what all patches share is folded away, and visual tokens are as large as words."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from argus.core.errors import UnsupportedError
from argus.core.registry import components
from argus.model.image_processor import ArgusImageProcessor
from argus.model.standardise import standardise_connector
from tests.model.connectors.composed import composed
from tests.model.connectors.mg import mg

CONNECTORS: dict[str, Any] = {
    "linear": {},
    "mlp": {},
    "mqt": {"max_tokens": 16, "heads": 2},
    "resampler": {"max_tokens": 16, "heads": 2, "key_source": "feature+position"},
    "pixel_shuffle": {},
    "pool": {"side": 4},
    "tokenpacker": {"levels": [1, 2]},
}


@pytest.mark.parametrize("name", CONNECTORS)
@torch.no_grad()
def test_what_meets_the_features_gives_no_common_part(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the patches of many pictures each channel has mean 0, and behind a norm deviation 1."""
    model, _ = composed(monkeypatch, {"mqt" if name == "resampler" else name: CONNECTORS[name]})
    standardise_connector(model, 6)
    given: list[tuple[nn.Module, Tensor, Tensor]] = []
    for entry in model.model.multi_modal_projector.entries():
        entry.register_forward_hook(lambda module, args, output: given.append((module, args[0], output.flatten(0, -2))))
    domains = [row.load()(row.load().Options()) for row in components("domain")]
    pixels = [d.draw("train", i, 32, 0).pixels for d in domains for i in range(6)]  # those that it was standardised on
    made = model.get_image_features(ArgusImageProcessor(32, 4)(pixels)["pixel_values"])
    assert given
    for module, inputs, output in given:
        assert output.mean(0).abs().max() < 0.02 * output.std()
        if isinstance(module, nn.LayerNorm):
            plain = F.layer_norm(inputs, module.normalized_shape).flatten(0, -2)
            assert plain.mean(0).abs().max() > 0.1
            torch.testing.assert_close(output.std(0), torch.ones(output.shape[1]), rtol=0.01, atol=0.01)
    assert float(made.std()) == pytest.approx(float(model.get_input_embeddings().weight.std()), rel=0.05)


def test_connectors_that_do_not_say_what_meets_the_features_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = composed(monkeypatch, "mlp")
    monkeypatch.setattr(type(model.model.multi_modal_projector), "entries", lambda self: ())
    with pytest.raises(UnsupportedError, match="does not say which weights meet the features first"):
        standardise_connector(model, 1)


def test_connectors_with_tokens_of_boxes_are_refused() -> None:
    """Their last matrix makes those tokens, and nothing says how large the maps are that they come from."""
    with pytest.raises(UnsupportedError, match="reads boxes too"):
        standardise_connector(mg()[0], 1)
