"""Pre-training of a Q-Former: what its queries take from a picture must tell, match and generate the text.

BLIP-2 (arXiv 2301.12597), section 3.2, and with it X-Former (arXiv 2407.13851), which adds a reconstruction of hidden patches:

    L = w_c L_ITC + w_m L_ITM + w_g L_ITG + w_r L_rec

    ITC   CE both ways over S_ij = max over queries of cos(z_i, t_j) / temperature; queries and text do not see each other
    ITM   CE of "belong together", mean of the queries' logits, over pairs, and for each picture and each text one wrong partner,
          drawn by its similarity; they see each other
    ITG   CE of the text's next words; text sees queries and earlier words
    rec   mean squared error on hidden patches, see `mae`

z are the states that stand for the picture: the queries' own, or with X-Former those behind the fusion (of the visible patches,
where some are hidden), for all four. Encoders get no gradient. Equal texts in a batch belong together: they share their target
and are no one's wrong partner. A picture without any wrong partner in the batch has no negative. Where several processes train,
ITC compares each one's pictures and texts with those of all; wrong partners are drawn among its own. Weights are 1 and half of
the patches are hidden, as in X-Former; texts have at most 32 words, as in BLIP-2. A text's first token stands for it in ITC and
starts it in ITG.

Shapes: pixels (B, 3, H, W), texts (B, S).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from argus.core.errors import UnsupportedError
from argus.core.registry import Options
from argus.core.sample import Sample
from argus.model.connectors.qformer import QFormerBridge
from argus.model.connectors.x_former import XFormer
from argus.training.objectives.base import Batch, Item, Objective, of_all, text_number
from argus.training.objectives.mae import check_pair, masked_states, reconstruction_loss
from argus.training.rows import IGNORE


class QFormerPretrainingOptions(Options):
    """Weights of the parts."""

    contrast: float = Field(1.0, ge=0, description="weight of the image-text contrast")
    match: float = Field(1.0, ge=0, description="weight of the image-text matching")
    generate: float = Field(1.0, ge=0, description="weight of the text generation")
    reconstruct: float = Field(0.0, ge=0, description="weight of the reconstruction; X-Former's is 1")
    mask: float = Field(0.5, gt=0, lt=1, description="share of the patches that is hidden, with reconstruction")
    max_length: int = Field(32, ge=2, description="tokens of a text")


class QFormerPretraining(Objective):
    """Contrast, matching, generation, and reconstruction."""

    Options = QFormerPretrainingOptions
    options: QFormerPretrainingOptions
    needs_questions = False

    def bind(self, model: nn.Module, processor: Any) -> None:
        super().bind(model, processor)
        connector: Any = getattr(getattr(model, "model", None), "multi_modal_projector", None)
        if not isinstance(connector, QFormerBridge):
            raise UnsupportedError(f"Q-Former pre-training needs a connector with a Q-Former, not a {type(connector).__name__}")
        connector.qformer.branch()
        words, wanted = connector.options.words, len(processor.tokenizer)
        if words < wanted:
            raise UnsupportedError(f"the Q-Former knows {words} words, and the tokenizer has {wanted}.", hint=f"words: {wanted}")
        if self.options.reconstruct:
            check_pair(model)

    def collate(self, items: Sequence[Item]) -> Batch:
        if any(isinstance(item, Sample) for item in items):
            raise UnsupportedError("Q-Former pre-training reads descriptions of the world; files have none")
        pictures = [Image.fromarray(drawing.pixels) for drawing, _ in items]  # type: ignore[misc]
        tokenizer = self.processor.tokenizer
        texts = [domain.describe(drawing.scene) for drawing, domain in items]  # type: ignore[misc]
        told = [f"{tokenizer.bos_token}{text}{tokenizer.eos_token}" for text in texts]
        rows = tokenizer(
            told, padding=True, truncation=True, max_length=self.options.max_length, add_special_tokens=False, return_tensors="pt"
        )
        return {
            "pixel_values": self.processor.image_processor(pictures)["pixel_values"],
            "input_ids": rows["input_ids"],
            "attention_mask": rows["attention_mask"],
            "text": torch.tensor([text_number(text) for text in texts]),  # (B,) the same of equal texts
        }

    def loss(self, model: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        connector, options = model.model.multi_modal_projector, self.options
        with torch.no_grad():
            features = model.model.encode_images(batch["pixel_values"])
        picture = connector.picture(features)  # (B, N, C)
        ids, mask, number = batch["input_ids"], batch["attention_mask"], batch["text"]
        qformer, branch = connector.qformer, connector.qformer.branch()
        whole = torch.arange(len(ids), device=ids.device)
        detail = hidden = restore = None
        if options.reconstruct:
            tower = model.model.vision_tower
            pixels = tower.normalised(batch["pixel_values"], 1)
            with torch.no_grad():
                detail, hidden, restore = masked_states(tower, pixels, options.mask)

        def fused(queries: Tensor, which: Tensor) -> tuple[Tensor, Tensor | None]:
            """The states that stand for pictures `which`, and what the visible patches became."""
            if not isinstance(connector, XFormer):
                return queries, None
            semantic, seen = features.tokens[which].tensor_split([connector.vision_width], -1)
            return connector.fuse(queries, semantic, seen if detail is None else detail[which])

        queries, text = qformer.with_text(picture, ids, mask, "separate")
        z, shown = fused(queries, whole)  # (B, Q, W)
        looks, reads, scale = branch.look(z), branch.read(text[:, 0]), branch.temperature
        logits = similarity(looks, of_all(reads), scale)  # (B, P B) of P processes
        of_texts = similarity(of_all(looks), reads, scale).T  # (B, P B)
        same = number[:, None] == of_all(number)
        target = same / same.sum(-1, keepdim=True)
        contrast = (F.cross_entropy(logits, target) + F.cross_entropy(of_texts, target)) / 2
        parts = {"contrast": contrast, "retrieval": same.gather(1, logits.argmax(-1, keepdim=True)).float().mean()}

        pictures, texts, right = pairs(similarity(looks, reads, scale).detach(), number[:, None] == number)
        both, _ = qformer.with_text(picture[pictures], ids[texts], mask[texts], "joint")
        matched = branch.match(fused(both, pictures)[0]).mean(1).float()  # (P, 2)
        parts["match"] = F.cross_entropy(matched, right)
        parts["match_accuracy"] = (matched.argmax(-1) == right).float().mean()

        queries, text = qformer.with_text(picture, ids, mask, "causal")
        if isinstance(connector, XFormer):
            text = connector.told(text, fused(queries, whole)[0])
        words = ids[:, 1:].masked_fill(mask[:, 1:] == 0, IGNORE)
        parts["generate"] = F.cross_entropy(branch.predictions(text[:, :-1]).flatten(0, 1).float(), words.flatten())

        total = options.contrast * contrast + options.match * parts["match"] + options.generate * parts["generate"]
        if options.reconstruct:
            assert shown is not None
            assert hidden is not None
            assert restore is not None
            made = connector.reconstruct(shown, z, restore)
            parts["reconstruct"] = reconstruction_loss(made, pixels, hidden, tower.towers[1].patch_size)
            total = total + options.reconstruct * parts["reconstruct"]
        return total, {name: part.detach() for name, part in parts.items()}


def similarity(looks: Tensor, reads: Tensor, temperature: Tensor) -> Tensor:
    """Logits (B, J) of pictures and texts: the nearest query's cosine, in float32 whatever the type of the states.

    Args:
        looks: queries (B, Q, E).
        reads: texts (J, E).
    """
    with torch.autocast(looks.device.type, enabled=False):
        a, b = F.normalize(looks.float(), dim=-1), F.normalize(reads.float(), dim=-1)
        return torch.einsum("iqe,je->ijq", a, b).max(-1).values / temperature


def pairs(scores: Tensor, same: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures (P,) and texts (P,) by number, and whether they belong together (P,): B that do, and up to 2 B that do not.

    Args:
        scores: (B, B) logits of pictures and texts; the likelier a wrong partner, the oftener it is drawn.
        same: (B, B) which belong together.
    """
    whole, wrong = torch.arange(len(same), device=same.device), (~same).any(-1).nonzero().flatten()
    if not len(wrong):
        return whole, whole, torch.ones_like(whole)
    far = scores.masked_fill(same, -torch.inf)
    texts = torch.multinomial(far[wrong].softmax(-1), 1).flatten()  # a wrong text for each picture
    pictures = torch.multinomial(far.T[wrong].softmax(-1), 1).flatten()  # a wrong picture for each text
    right = torch.cat([torch.ones_like(whole), torch.zeros_like(texts), torch.zeros_like(pictures)])
    return torch.cat([whole, wrong, pictures]), torch.cat([whole, texts, wrong]), right
