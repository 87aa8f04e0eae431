"""Samples as chats: the template in which turns are written, and batches of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import BatchFeature

from argus.core.errors import DataError
from argus.core.images import load_image
from argus.core.sample import Sample
from argus.model.prompt_encoding import PromptEncoding

# `{% generation %}` marks what the model says, so that assistant masks come from the template itself.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{% set who = '' %}"
    "{% elif message['role'] == 'user' %}{% set who = 'User: ' %}"
    "{% else %}{% set who = 'Assistant:' %}{% endif %}"
    "{{ who }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ ' ' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endif %}"
    "{{ eos_token }}{% endgeneration %}{{ '\n' }}"
    "{% else %}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '\n' }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)

# For encoder-decoders, which were trained on prompts that end with the end of the text.
CLOSED_TEMPLATE = CHAT_TEMPLATE.replace("'Assistant:'", "'Assistant:' + eos_token").replace(
    "%}Assistant:{%", "%}Assistant:{{ eos_token }}{%"
)


class ChatEncoding(PromptEncoding):
    """The part of a processor that encodes samples."""

    def encode(self, samples: Sequence[Sample]) -> BatchFeature:
        """Many samples at once, as a padded batch of tensors.

        Samples that end with a question are prompted for the answer. Samples that end with an answer also give `labels` (B, S):
        the ids that the assistant says, -100 elsewhere.

        Raises:
            DataError: a picture that cannot be read, or samples of both kinds.
        """
        answered = {s.messages[-1].role == "assistant" for s in samples}
        if len(answered) != 1:
            raise DataError("samples with an answer and samples without one cannot share a batch")
        learn = answered.pop()
        chats, shown = [], []
        for sample in samples:
            shown.append([load_image(p, where=sample.id) for p in sample.images()])
            pictures = iter(shown[-1])
            chats.append(
                [
                    {**m, "content": [{**p, "image": next(pictures)} if p["type"] == "image" else p for p in m["content"]]}
                    for m in sample.chat()
                ]
            )
        batch = self.apply_chat_template(
            chats,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=not learn,
            return_assistant_tokens_mask=learn,
            processor_kwargs={"padding": True, **self.reading(samples, shown)},
        )
        if learn:
            said = torch.as_tensor(batch.pop("assistant_masks")).bool()
            batch["labels"] = batch["input_ids"].masked_fill(~said, -100)
        return batch
