"""Views: a picture -> tiles of the encoder's size, with their layout."""

from argus.core.registry import Component

COMPONENTS = (
    Component("view", "square", "argus.model.views.square:Square", "one square tile: stretched, padded or cropped"),
    Component("view", "internvl", "argus.model.views.internvl:InternVL", "tiles by the closest aspect ratio, thumbnail last"),
    Component("view", "anyres", "argus.model.views.anyres:AnyRes", "best-fitting padded tiles, read as one map with line breaks"),
    Component("view", "nvlm", "argus.model.views.nvlm:NVLM", "tiles announced by text tags, thumbnail last", "nvlm"),
    Component(
        "view",
        "4khd",
        "argus.model.views.dynamic_partition:DynamicPartition",
        "as many tiles as a budget holds, with line breaks",
        "xcomposer2-4khd",
    ),
    Component("view", "ferret_ui", "argus.model.views.ferret_ui:FerretUI", "a whole screen and its two halves", "ferret-ui"),
    Component(
        "view",
        "ovis",
        "argus.model.views.ovis:OvisView",
        "a whole and native crops, with indicators around and between them",
        "ovis",
    ),
    Component(
        "view",
        "task_tokens",
        "argus.model.views.task_tokens:TaskTokens",
        "another view, with learned tokens of depth, segmentation and generation behind the picture",
        "ola-vlm",
    ),
    Component(
        "view",
        "tokenpacker_hd",
        "argus.model.views.tokenpacker_hd:TokenPackerHD",
        "tiles with commas and line breaks between them, thumbnail last",
        "tokenpacker",
    ),
)
