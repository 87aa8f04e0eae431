"""Partial LoRA: text is read by the base model, pictures pass through the updates too, in every family."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import argus
from argus.core.errors import ModelError, RecipeError, UnsupportedError
from argus.core.registry import build
from argus.model.anatomy import anatomy
from argus.model.backbones.added import add_backbone, restore_backbones
from argus.model.backbones.partial_lora import PartialLoRA, Update
from argus.model.composed import ArgusForConditionalGeneration
from argus.model.config import ArgusConfig
from argus.model.load import read_weights
from argus.training.tuners.lora import LoRA, LoRAOptions
from tests.methods.families import FAMILIES, cast, single
from tests.methods.tiny import IMAGE, LAYERS, VIDEO
from tests.model.tiny import LANGUAGE, TOWERS

SMALL = {"r": 4, "alpha": 8.0, "dropout": 0.0}
# Without a cache, a random model that says a placeholder's word is taken for one that was shown a picture more.
ANSWER = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False, "suppress_tokens": [IMAGE, VIDEO]}


def tuned(model: Any, learned: bool = True, **options: Any) -> PartialLoRA:
    """Add the updates; learned ones have a B that is not 0."""
    build("tuner", "partial_lora", {**SMALL, **options}).apply(model)
    updates: Any = anatomy(model).root.partial_lora
    if learned:
        torch.manual_seed(1)
        with torch.no_grad():
            for module in updates.modules():
                if isinstance(module, Update):
                    module.lora_B.weight.normal_()
    return updates


def inputs(family: str, pictures: list[int], questions: list[int]) -> dict[str, Tensor]:
    return FAMILIES[family].inputs(pictures, questions)


def placeholders(given: dict[str, Tensor]) -> Tensor:
    return given["input_ids"] == IMAGE


class Watched:
    """Inputs and outputs of every linear layer of the decoder, by name, as base and updates make them."""

    def __init__(self, model: Any) -> None:
        self.calls: dict[str, list[tuple[Tensor, Tensor]]] = {}
        for name, module in anatomy(model).layers.named_modules():
            if isinstance(module, nn.Linear):
                module.register_forward_hook(self.note(name))

    def note(self, name: str) -> Any:
        return lambda module, args, out: self.calls.setdefault(name, []).append((args[0].detach(), out.detach()))


@pytest.mark.parametrize("family", sorted(FAMILIES))
@torch.no_grad()
def test_with_b_at_0_it_is_the_base_model(family: str) -> None:
    model = FAMILIES[family].model()
    given = inputs(family, [1, 2, 0], [4, 2, 6])
    logits, said = model(**given).logits, model.generate(**given, **ANSWER)
    updates = tuned(model, learned=False)
    assert all(bool(m.lora_A.weight.any()) and not m.lora_B.weight.any() for m in updates.modules() if isinstance(m, Update))
    assert torch.equal(model(**given).logits, logits)
    assert torch.equal(model.generate(**given, **ANSWER), said)


@pytest.mark.parametrize("family", sorted(FAMILIES))
@torch.no_grad()
def test_text_has_the_base_linear_and_pictures_the_low_rank_term(family: str) -> None:
    """Every linear layer of every family: y = W x + b for text; + (alpha / r) B A x where placeholders are."""
    model = FAMILIES[family].model()
    updates = tuned(model)
    watched, given = Watched(model), inputs(family, [1, 2, 0], [4, 2, 6])
    model(**given)
    visual, layers = placeholders(given), anatomy(model).layers
    assert len(watched.calls) == 7 * LAYERS
    for name, ((x, out),) in watched.calls.items():
        number, _, path = name.partition(".")
        linear, update = layers.get_submodule(name), updates.layers[int(number)].get_submodule(path.replace(".", "_"))
        base = nn.functional.linear(x, linear.weight, linear.bias)
        assert torch.equal(out[~visual], base[~visual])
        term = 8 / 4 * (x @ update.lora_A.weight.T) @ update.lora_B.weight.T
        assert term[visual].abs().amin(0).max() > 0.01
        torch.testing.assert_close(out[visual], (base + term)[visual], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_gradients_come_from_pictures_alone(family: str) -> None:
    """dL / dB = (alpha / r) sum over placeholders of (dL / dy) (A x)^T; and 0, not nothing, in a batch without pictures."""
    model = FAMILIES[family].model().train()
    updates = tuned(model)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {n for n, _ in model.named_parameters() if "lora_" in n}
    given, seen = inputs(family, [1, 2, 0], [4, 2, 6]), {}
    linear = anatomy(model).layers[1].mlp.down_proj

    def note(module: Any, args: Any, out: Tensor) -> None:
        out.retain_grad()
        seen.update(x=args[0].detach(), out=out)

    linear.register_forward_hook(note)
    model(**given).logits.square().mean().backward()
    update, visual = updates.layers[1].mlp_down_proj, placeholders(given)
    rows = seen["out"].grad[visual], seen["x"][visual] @ update.lora_A.weight.T
    torch.testing.assert_close(update.lora_B.weight.grad, 8 / 4 * rows[0].T @ rows[1], rtol=1e-4, atol=1e-6)
    model.zero_grad()
    text = inputs(family, [0, 0], [5, 3])
    model(**text).logits.square().mean().backward()
    assert all(p.grad is not None and not p.grad.any() for p in updates.parameters())


@pytest.mark.parametrize("family", sorted(FAMILIES))
@torch.no_grad()
def test_text_alone_is_read_as_before_and_decoding_has_no_updates(family: str) -> None:
    model = FAMILIES[family].model()
    text, given = inputs(family, [0, 0], [5, 3]), inputs(family, [1, 2], [4, 2])
    logits, before = model(**text).logits, model(**given).logits
    updates, calls = tuned(model), []
    updates.layers[0].self_attn_q_proj.lora_A.register_forward_hook(lambda module, args, out: calls.append(len(args[0])))
    assert torch.equal(model(**text).logits, logits)
    assert not calls
    assert not torch.allclose(model(**given).logits, before, atol=1e-2)
    calls.clear()
    said = model.generate(**given, **ANSWER)
    assert calls == [int(placeholders(given).sum())]  # once, in the prefill
    uncached = model.generate(**given, **ANSWER, use_cache=False)
    assert torch.equal(said, uncached)
    beams = model.generate(**given, **ANSWER, num_beams=2)
    assert beams.shape == said.shape


@pytest.mark.parametrize("family", sorted(FAMILIES))
@torch.no_grad()
def test_a_padded_batch_is_its_items(family: str) -> None:
    model = FAMILIES[family].model()
    tuned(model)
    pictures = [1, 2, 1]
    given = inputs(family, pictures, [4, 2, 6])
    together = model(**given).logits
    for item in range(3):
        alone = model(**single(given, item, family, pictures)).logits[0]
        real = given["attention_mask"][item].bool()
        torch.testing.assert_close(together[item, real], alone, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_chunked_prefill_has_the_same_updates() -> None:
    """Chunks that cut pictures anywhere."""
    model = FAMILIES["argus"].model()
    tuned(model)
    given = inputs("argus", [1, 2, 0], [4, 2, 6])
    said = model.generate(**given, **ANSWER)
    assert torch.equal(model.generate(**given, **ANSWER, prefill_chunk_size=7), said)


@pytest.mark.parametrize("family", sorted(FAMILIES))
@torch.no_grad()
def test_files_and_copies_hold_the_updates(family: str, tmp_path: Path) -> None:
    model = FAMILIES[family].model()
    tuned(model)
    given = inputs(family, [1, 2], [4, 2])
    logits = model(**given).logits
    twin = copy.deepcopy(model)
    anatomy(model).root.partial_lora.layers[0].mlp_up_proj.lora_B.weight.zero_()
    assert not torch.equal(model(**given).logits, logits)
    assert torch.equal(twin(**given).logits, logits)
    twin.save_pretrained(tmp_path)
    again = read_weights(type(model), str(tmp_path), str(tmp_path), dtype=torch.float32).eval()
    restore_backbones(again, tmp_path)
    assert torch.equal(again(**given).logits, logits)
    assert anatomy(again).root.partial_lora.options == anatomy(model).root.partial_lora.options


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_half_precision_and_recomputed_layers(family: str) -> None:
    """Layers that are computed again in the backward pass take the rows of their own pass, even if another came between."""
    model = FAMILIES[family].model().train()
    updates = tuned(model)
    one, two = inputs(family, [1, 2], [4, 2]), inputs(family, [2], [3])

    def gradients() -> list[Tensor]:
        model.zero_grad()
        torch.stack([model(**g, use_cache=False).logits.square().mean() for g in (one, two)]).sum().backward()
        return [p.grad.clone() for p in updates.parameters()]

    plain = gradients()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    for a, b in zip(plain, gradients(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    model.gradient_checkpointing_disable()
    model.eval().bfloat16()
    assert model(**cast(one, torch.bfloat16)).logits.isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        assert model.float()(**one).logits.isfinite().all()


@pytest.mark.parametrize("family", sorted(FAMILIES))
@torch.no_grad()
def test_a_reduction_cuts_the_rows_with_the_positions(family: str) -> None:
    """Behind a drop each linear layer sees fewer positions, and still knows which of them are of pictures."""
    model = FAMILIES[family].model()
    updates = tuned(model)
    given = inputs(family, [1, 2], [4, 2])
    with argus.attach(model, "random", keep=1.0):
        everything = model(**given).logits
    assert torch.equal(everything, model(**given).logits)
    seen = []
    updates.layers[1].mlp_up_proj.lora_A.register_forward_hook(lambda module, args, out: seen.append(len(args[0])))
    with argus.attach(model, "random", keep=0.5) as attachment:
        model(**given)
        kept = sum(len(k.indices) for k in attachment.kept)
        assert kept <= seen[0] < int(placeholders(given).sum())
        if FAMILIES[family].plain:
            assert seen[0] == kept


@pytest.mark.parametrize("text", sorted(LANGUAGE))
@torch.no_grad()
def test_any_language_model_of_linear_layers(text: str) -> None:
    """Composed with it instead of tuned; GPT-NeoX has one matrix for queries, keys and values, with a bias."""
    spec = {**LANGUAGE[text], "vocab_size": 64}
    torch.manual_seed(0)
    made = ArgusForConditionalGeneration(ArgusConfig(TOWERS["vit"].to_dict(), spec, backbone={"partial_lora": SMALL})).eval()
    pixels, ids = torch.randn(1, 3, 32, 32), torch.tensor([[5, *[3] * 16, 6, 7, 8]])
    base = made(ids, pixel_values=pixels).logits
    for parameter in made.model.partial_lora.parameters():
        parameter.normal_()
    other = made(ids, pixel_values=pixels).logits
    assert torch.equal(other[:, 0], base[:, 0])  # text in front of the picture sees nothing of it
    assert not torch.allclose(other[:, 1:], base[:, 1:], atol=1e-3)
    linears = [m for m in made.model.language_model.layers.modules() if isinstance(m, nn.Linear)]
    assert len(linears) == sum(isinstance(m, Update) for m in made.model.partial_lora.modules())


def test_adapters_and_full_parts() -> None:
    """LoRA of peft on top, merged or not, leaves the updates what they are; parts named under `full` learn beside them."""
    model = FAMILIES["llava"].model()
    tuned(model, full=["multi_modal_projector"])
    learning = {n for n, p in model.named_parameters() if p.requires_grad}
    assert {n.split(".")[1] for n in learning} == {"partial_lora", "multi_modal_projector"}
    given = inputs("llava", [1, 2], [4, 2])
    with torch.no_grad():
        logits = model(**given).logits
        adapted: Any = LoRA(LoRAOptions(r=2)).apply(model)
        assert torch.equal(adapted(**given).logits, logits)
        with pytest.raises(UnsupportedError, match="have adapters"):
            tuned(adapted)
        assert torch.equal(adapted.merge_and_unload()(**given).logits, logits)


def test_what_is_refused() -> None:
    model = FAMILIES["llava"].model()
    with pytest.raises(UnsupportedError, match=r"no linear layer 'k_prj'.*k_proj"):
        tuned(model, targets=["k_prj"])
    with pytest.raises(RecipeError, match="no part 'projector'"):
        tuned(model, full=["projector"])
    updates = tuned(model, targets=["k_proj", "v_proj"])
    assert sum(isinstance(m, Update) for m in updates.modules()) == 2 * LAYERS
    assert tuned(model, targets=["k_proj", "v_proj"]) is updates
    with pytest.raises(ModelError, match="already, with other options"):
        tuned(model)
    with pytest.raises(UnsupportedError, match="cannot be added"):
        add_backbone(model, "attention_norms", {})


def test_defaults_are_the_papers() -> None:
    options = PartialLoRA.Options()
    assert (options.r, options.alpha, options.dropout, options.targets) == (256, 256.0, 0.05, [])
