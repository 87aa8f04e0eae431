"""Reduction: fewer visual tokens, before the language model or inside it.

A reduction is a score producer (`scores`), a selector (`selectors`) and the layers where it drops; `base.Reducer`
ties the three together and `argus.methods.layer_plan` carries them out on any model.
"""

from argus.core.registry import Component

COMPONENTS = (
    Component(
        "reducer",
        "aim_icl",
        "argus.methods.reduction.aim_icl:Aim",
        "put what the model reads in each demonstration's text in the place of the demonstration, and let its picture leave",
        "aim",
    ),
    Component(
        "reducer",
        "atp_llava",
        "argus.methods.reduction.atp_llava:AtpLlava",
        "keep visual tokens above trained thresholds that depend on layer, picture and question, inside the language model",
        "atp-llava",
    ),
    Component(
        "reducer",
        "dynamic_llava",
        "argus.methods.reduction.dynamic_llava:DynamicLlava",
        "keep the visual tokens of a prompt, and the generated tokens in the KV cache, that trained predictors choose",
        "dynamic-llava",
    ),
    Component(
        "reducer",
        "dyvte",
        "argus.methods.reduction.dyvte:DyVTE",
        "let all visual tokens leave after the layer that a small trained router chooses for each question",
        "dyvte",
    ),
    Component(
        "reducer",
        "fastervlm",
        "argus.methods.reduction.fastervlm:FasterVLM",
        "keep the patches that the vision encoder's CLS token attends to, before the language model",
        "fastervlm",
    ),
    Component(
        "reducer",
        "fastv",
        "argus.methods.reduction.fastv:FastV",
        "keep the visual tokens that the last prompt token attends to, after layer K of the language model",
    ),
    Component(
        "reducer",
        "fopru",
        "argus.methods.reduction.fopru:FoPru",
        "keep the patches or whole rows of patches that the vision encoder attends to, before the language model",
        "fopru",
    ),
    Component(
        "reducer",
        "gsearch",
        "argus.methods.reduction.gsearch:GSearch",
        "keep in every layer of the language model that layer's own share of the visual tokens, by a searched schedule",
        "gsearch",
    ),
    Component(
        "reducer",
        "random",
        "argus.methods.reduction.random:Random",
        "keep visual tokens by lot, the same for a picture whatever else is in the batch",
    ),
    Component(
        "reducer",
        "yopo",
        "argus.methods.reduction.yopo:Yopo",
        "keep all visual tokens and cut what is computed for them: neighbours, heads, neurons, layers",
        "yopo",
    ),
)
