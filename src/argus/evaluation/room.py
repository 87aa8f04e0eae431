"""A KV cache with room behind its tokens, so that decoding writes each step's keys and values instead of copying all of them."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.cache_utils import DynamicLayer


class RoomyLayer(DynamicLayer):
    """A layer of transformers' growing cache whose tensors are views of larger ones."""

    keys: Tensor
    values: Tensor
    room: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, S + T, d) with T more tokens."""
        if not self.is_initialized:
            return super().update(key_states, value_states, *args, **kwargs)
        length, more = self.keys.shape[-2], key_states.shape[-2]
        room = self.room
        if room is None or room[0].data_ptr() != self.keys.data_ptr() or room[0].shape[-2] < length + more:
            spare = more + length // 2
            room = self.room = (_wider(self.keys, more + spare), _wider(self.values, more + spare))
        self.keys, self.values = (x[..., : length + more, :] for x in room)
        self.keys[..., length:, :] = key_states
        self.values[..., length:, :] = value_states
        return self.keys, self.values


def _wider(x: Tensor, more: int) -> Tensor:
    """(B, H, S, d) -> (B, H, S + more, d), the new places not yet written."""
    wide = x.new_empty(*x.shape[:-2], x.shape[-2] + more, x.shape[-1])
    wide[..., : x.shape[-2], :] = x
    return wide


def make_room(cache: Any) -> None:
    """Let the plain layers of a cache grow in place; a technique's own layers stay as they are."""
    for index, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer:
            cache.layers[index] = RoomyLayer()
            cache.layers[index].__dict__.update(layer.__dict__)
