"""Connectors: VisualFeatures -> visual tokens (B, M, D) in the language model's width."""

from argus.core.registry import Component

COMPONENTS = (
    Component(
        "connector", "emma", "argus.model.connectors.emma:EMMA", "mixes the question's tokens into the patches", paper="emma"
    ),
    Component("connector", "linear", "argus.model.connectors.linear:Linear", "one matrix, as in the first LLaVA"),
    Component(
        "connector",
        "mg_llava",
        "argus.model.connectors.mg_llava:MGLLaVA",
        "fine maps under coarse tokens by a gated convolution, and a token per box",
        paper="mg-llava",
    ),
    Component("connector", "mlp", "argus.model.connectors.mlp:MLP", "two layers with GELU, as in LLaVA-1.5"),
    Component("connector", "mqt", "argus.model.connectors.mqt:MQT", "a resampler that gives any number of tokens", "mqt"),
    Component(
        "connector",
        "ovis",
        "argus.model.connectors.ovis:Ovis",
        "each patch mixes the rows of a visual embedding table",
        paper="ovis",
    ),
    Component("connector", "pixel_shuffle", "argus.model.connectors.pixel_shuffle:PixelShuffle", "2 x 2 patches side by side"),
    Component("connector", "pool", "argus.model.connectors.pool:Pool", "patches averaged to a grid, then two layers", "infmllm"),
    Component(
        "connector",
        "tokenpacker",
        "argus.model.connectors.tokenpacker:TokenPacker",
        "coarse tokens that look into their block of patches",
        "tokenpacker",
    ),
    Component(
        "connector",
        "qformer",
        "argus.model.connectors.qformer:QFormerBridge",
        "learned queries read the picture; one or two matrices behind them",
        paper="tinygpt-v",
    ),
    Component(
        "connector",
        "x_former",
        "argus.model.connectors.x_former:XFormer",
        "a Q-Former that also reads a masked autoencoder",
        paper="x-former",
    ),
)
