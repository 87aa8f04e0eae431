"""TinyGPT-V's language model: norms inside attention, off and on, in Phi-2 and in others, with adapters around them."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.phi.modeling_phi import apply_rotary_pos_emb

from argus.core.errors import UnsupportedError
from argus.model.backbones.attention_norms import PUBLISHED, published_weights
from argus.model.compose import compose
from argus.model.composed import ArgusForConditionalGeneration
from argus.model.config import ArgusConfig
from argus.model.load import load
from argus.training.tuners.lora import LoRA, LoRAOptions
from tests.model.test_load import language
from tests.model.tiny import BODY, LANGUAGE, TOWERS

PHI = {"model_type": "phi", "tie_word_embeddings": False, **BODY}
IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])


def model(text: str | dict[str, Any] = "phi", scale: float = 1.0, **norms: Any) -> ArgusForConditionalGeneration:
    torch.manual_seed(0)
    spec = {**(PHI if text == "phi" else LANGUAGE[text] if isinstance(text, str) else text), "vocab_size": 64}
    made = ArgusForConditionalGeneration(ArgusConfig(TOWERS["vit"].to_dict(), spec, backbone={"attention_norms": norms}))
    with torch.no_grad():
        for parameter in made.model.language_model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4 * scale)
    return made.eval()


@torch.no_grad()
def test_without_norms_it_is_phi(tmp_path: Path) -> None:
    """A stored Phi with a bias on its head; every logit."""
    place = language(tmp_path, "phi", tie_word_embeddings=False)
    phi = AutoModelForCausalLM.from_pretrained(place)
    phi.lm_head.bias.normal_()
    phi.save_pretrained(place)
    composed, _ = compose({"language_model": place, "backbone": {"attention_norms": {"qk": False, "post": False}}})
    assert torch.equal(composed.eval()(IDS).logits, load(place)[0](IDS).logits)
    composed.save_pretrained(tmp_path / "again")
    again = ArgusForConditionalGeneration.from_pretrained(tmp_path / "again").eval()
    assert torch.equal(again(IDS).logits, composed(IDS).logits)


@torch.no_grad()
def test_with_norms_a_stored_model_is_composed_and_reads_otherwise(tmp_path: Path) -> None:
    place = language(tmp_path, "llama")
    plain, _ = compose({"language_model": place})
    normed, _ = compose({"language_model": place, "backbone": {"attention_norms": {}}})
    assert torch.equal(
        normed.model.language_model.layers[0].mlp.up_proj.weight, plain.model.language_model.layers[0].mlp.up_proj.weight
    )
    assert not torch.equal(normed.eval()(IDS).logits, plain.eval()(IDS).logits)


@torch.no_grad()
def test_the_block_is_the_formula() -> None:
    """n = LN(x); y = x + RMS(Attn(n)) + MLP(n), with queries and keys normalised per head, then rotated."""
    made = model()
    phi, norms = made.model.language_model, made.model.attention_norms.norms[0]
    for parameter in norms.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.3)
    layer, attention, seen = phi.layers[0], phi.layers[0].self_attn, []
    layer.register_forward_hook(lambda _, args, out: seen.append((args[0], out)))
    made(IDS)
    x, y = seen[0]
    n = layer.input_layernorm(x)

    def head_norm(states: torch.Tensor, norm: Any) -> torch.Tensor:
        states = states.view(1, 6, 2, 24)
        states = (states - states.mean(-1, keepdim=True)) / (states.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        return (states * norm.weight + norm.bias).transpose(1, 2)

    q = head_norm(n @ attention.q_proj.weight.T + attention.q_proj.bias, norms.q_head_norm)
    k = head_norm(n @ attention.k_proj.weight.T + attention.k_proj.bias, norms.k_head_norm)
    v = attention.v_proj(n).view(1, 6, 2, 24).transpose(1, 2)
    cos, sin = phi.rotary_emb(n, torch.arange(6)[None])
    turned = attention.rotary_ndims
    q_rot, k_rot = apply_rotary_pos_emb(q[..., :turned], k[..., :turned], cos, sin)
    q, k = torch.cat([q_rot, q[..., turned:]], -1), torch.cat([k_rot, k[..., turned:]], -1)
    scores = (q @ k.transpose(-1, -2) * 24**-0.5).masked_fill(torch.ones(6, 6).triu(1).bool(), -torch.inf)
    out = attention.dense((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
    post = out / (out.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norms.out_norm.weight
    torch.testing.assert_close(y, x + post + layer.mlp(n), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_queries_and_keys_have_mean_0_and_variance_1() -> None:
    made, seen = model("llama"), []
    made.model.language_model.layers[1].self_attn.k_proj.register_forward_hook(lambda _, __, out: seen.append(out))
    made(IDS)
    heads = seen[0].unflatten(-1, (-1, 24))
    torch.testing.assert_close(heads.mean(-1), torch.zeros(1, 6, 1), rtol=0, atol=1e-5)
    torch.testing.assert_close(heads.var(-1, unbiased=False), torch.ones(1, 6, 1), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("text", ["llama", "qwen2", "phi"])
@torch.no_grad()
def test_batches_caches_copies_and_saving(text: str, tmp_path: Path) -> None:
    made = model(text)
    ids = torch.tensor([[5, 6, 7, 8], [0, 5, 6, 7]])
    mask = torch.tensor([[1, 1, 1, 1], [0, 1, 1, 1]])
    both = made(ids, attention_mask=mask).logits
    torch.testing.assert_close(both[1, 1:], made(ids[1:, 1:]).logits[0], rtol=1e-4, atol=1e-4)
    said = made.generate(IDS, max_new_tokens=4, do_sample=False)
    assert torch.equal(made(said[:, :-1]).logits.argmax(-1)[:, 5:], said[:, 6:])
    twin = copy.deepcopy(made)
    for norms in made.model.attention_norms.norms:
        norms.out_norm.weight.zero_()
    assert not torch.equal(made(IDS).logits, twin(IDS).logits)
    assert torch.equal(twin.generate(IDS, max_new_tokens=4, do_sample=False), said)
    twin.save_pretrained(tmp_path)
    again = ArgusForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert torch.equal(again(IDS).logits, twin(IDS).logits)
    assert twin.bfloat16()(IDS).logits.isfinite().all()


def test_norms_see_what_an_adapter_adds() -> None:
    """Merged or beside its matrix, an update of W_q is the same: LN(W n + B A n) = LN((W + B A) n)."""
    made = model("llama")
    tuned: Any = LoRA(LoRAOptions(r=2, full=["q_head_norm"], targets=["q_proj"])).apply(made)
    learned = {n for n, p in tuned.named_parameters() if p.requires_grad}
    assert len(learned) == 2 * (2 + 2)  # A, B and a norm of two numbers, in two blocks
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
        before = tuned.eval()(IDS).logits
        torch.testing.assert_close(tuned.merge_and_unload()(IDS).logits, before, rtol=1e-4, atol=1e-4)


def run(made: ArgusForConditionalGeneration, steps: int) -> list[float]:
    """Losses of a few steps on one text, in half precision as a GPU computes it."""
    optimiser = torch.optim.AdamW(made.parameters(), lr=1e-3)
    losses = []
    for _ in range(steps):
        with torch.autocast("cpu", torch.float16):
            loss = made.train()(IDS, labels=IDS).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        if not loss.isfinite():
            break
    return losses


def test_half_precision_overflows_without_norms_and_trains_with_them() -> None:
    """Queries and keys of some hundred times the usual size: their product leaves fp16's 65,504."""
    losses = {}
    for name, norms in {"plain": False, "normed": True}.items():
        made = model(qk=norms, post=norms)
        made.model.language_model.set_attn_implementation("matmul")  # as in training on CPUs: nothing is computed in float32
        with torch.no_grad():
            for layer in made.model.language_model.layers:
                layer.self_attn.q_proj.weight.mul_(3000)
                layer.self_attn.k_proj.weight.mul_(3000)
        losses[name] = run(made, 200)
    assert not torch.tensor(losses["plain"]).isfinite().all()
    assert torch.tensor(losses["normed"]).isfinite().all()
    assert len(losses["normed"]) == 200
    assert losses["normed"][-1] < losses["normed"][0]


def test_norms_bound_attention() -> None:
    """What a stage logs is a bound of the true logits, and sqrt(d) at the norms' start."""
    plain, normed = model("llama", 8, qk=False, post=False), model("llama", 8)
    found = {}
    for name, made in {"plain": plain, "normed": normed}.items():
        assert made.model.attention_norms.statistics() == {}
        made.train()(IDS)
        found[name] = made.model.attention_norms.statistics()["attention_logit"].item()
    assert found["normed"] == pytest.approx(24**0.5, rel=1e-3)
    assert found["plain"] >= 5 * found["normed"]
    layer, largest = plain.model.language_model.layers[0].self_attn, 0.0
    seen: list[torch.Tensor] = []
    layer.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs["hidden_states"]), with_kwargs=True)
    with torch.no_grad():
        plain.eval()(IDS)
        q, k = (p(seen[0]).view(6, -1, 24).transpose(0, 1) for p in (layer.q_proj, layer.k_proj))
        largest = (q @ k.transpose(-1, -2) * 24**-0.5).abs().max().item()
    assert largest <= found["plain"] * 1.001


@torch.no_grad()
def test_the_authors_weights() -> None:
    """Their one matrix for queries, keys and values holds them head by head."""
    made = model()
    state = made.model.state_dict()
    theirs = {}
    for name, weight in state.items():
        if name.startswith("language_model."):
            plain = name.removeprefix("language_model.")
            if ".q_proj." in plain:
                parts = [state[name.replace("q_proj", f"{kind}_proj")].unflatten(0, (2, 24)) for kind in "qkv"]
                theirs[plain.replace("q_proj", "query_key_value")] = torch.stack(parts, 1).flatten(0, 2)
            elif not any(f".{kind}_proj." in plain for kind in "kv"):
                theirs[plain] = weight
        elif name.startswith("attention_norms."):
            layer, norm, kind = name.split(".")[2:]
            called = {ours: published for published, ours in PUBLISHED.items()}[norm]
            theirs[f"layers.{layer}.self_attn.{called}.{kind}"] = weight
    found = published_weights(theirs, heads=2)
    assert found.keys() == {n for n in state if n.startswith(("language_model.", "attention_norms."))}
    assert all(torch.equal(found[name], state[name]) for name in found)


def test_sizes_of_the_paper() -> None:
    """Phi-2: 2.8 B parameters; 32 blocks with two pairs of 80 and one of 2560."""
    sizes = {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 32, "num_attention_heads": 32}
    text = {**AutoConfig.for_model("phi", **sizes).to_dict(), "lm_head_bias": True}
    with torch.device("meta"):
        made = ArgusForConditionalGeneration(ArgusConfig(TOWERS["vit"].to_dict(), text, backbone={"attention_norms": {}}))
    norms = sum(p.numel() for p in made.model.attention_norms.parameters())
    assert norms == 32 * (4 * 80 + 2560)
    words = sum(p.numel() for part in (made.model.language_model, made.lm_head) for p in part.parameters())
    assert (words + norms) / 1e9 == pytest.approx(2.8, rel=0.01)


def test_a_family_without_projections_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="'gpt_neox' has no q_proj and k_proj"):
        model("gpt_neox")
