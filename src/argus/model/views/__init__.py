"""Views: a picture -> tiles of the encoder's size, with their layout."""

from argus.core.registry import Component

COMPONENTS = (Component("view", "square", "argus.model.views.square:Square", "one square tile: stretched, padded or cropped"),)
