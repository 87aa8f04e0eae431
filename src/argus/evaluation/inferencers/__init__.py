"""Inferencers: how an answer is read out of a model."""

from argus.core.registry import Component

COMPONENTS = (
    Component(
        "inferencer",
        "calibrated",
        "argus.evaluation.inferencers.calibrated:Calibrated",
        "another inferencer's options with probabilities at a fitted temperature",
        "chef",
    ),
    Component(
        "inferencer",
        "chain_of_thought",
        "argus.evaluation.inferencers.chain_of_thought:ChainOfThought",
        "another inferencer's answer, behind the model's own thought",
        "chef",
    ),
    Component(
        "inferencer",
        "multi_turn",
        "argus.evaluation.inferencers.multi_turn:MultiTurn",
        "turns that name the answer before them: the right one, or the model's own",
        "chef",
    ),
    Component("inferencer", "ppl", "argus.evaluation.inferencers.ppl:PPL", "the option likeliest in an answer template", "chef"),
    Component(
        "inferencer",
        "likelihood",
        "argus.evaluation.inferencers.likelihood:Likelihood",
        "the option the model finds likeliest",
    ),
    Component(
        "inferencer",
        "cosine",
        "argus.evaluation.inferencers.cosine:Cosine",
        "the candidate nearest to the references by a dual encoder's embeddings",
        "mvl-sib",
    ),
    Component(
        "inferencer",
        "dialogue",
        "argus.evaluation.inferencers.dialogue:Dialogue",
        "turn by turn, with the model's own earlier answers in the conversation",
        "mmdu",
    ),
    Component("inferencer", "generate", "argus.evaluation.inferencers.generate:Generate", "what the model writes, greedily"),
    Component(
        "inferencer",
        "search",
        "argus.evaluation.inferencers.search:SearchFirst",
        "another inferencer's answer, from the part of the picture that a search found",
    ),
    Component(
        "inferencer",
        "drawn",
        "argus.evaluation.inferencers.drawn:Drawn",
        "the option, a picture, that is most like what the model draws",
        "seed-bench-2",
    ),
    Component("inferencer", "given", "argus.evaluation.inferencers.given:Given", "answers that come with the items", "mmie"),
    Component(
        "inferencer",
        "interleaved",
        "argus.evaluation.inferencers.interleaved:Interleaved",
        "texts and pictures in turn, drawn by the model or described by it",
        "mmie",
    ),
    Component(
        "inferencer",
        "prefix",
        "argus.evaluation.inferencers.prefix:Prefix",
        "the option that is likeliest over several pictures, asked one by one",
        "lvlm-ehub",
    ),
    Component(
        "inferencer",
        "steps",
        "argus.evaluation.inferencers.steps:Steps",
        "another inferencer's answer; where it gives none, its steps are asked for in a second turn",
        "core-mm",
    ),
    Component("inferencer", "stored", "argus.evaluation.inferencers.stored:Stored", "answers from a file of predictions"),
    Component(
        "inferencer",
        "subquestions",
        "argus.evaluation.inferencers.subquestions:Subquestions",
        "one language model asks the model about details, another concludes",
        "lvlm-ehub",
    ),
    Component(
        "inferencer",
        "worded",
        "argus.evaluation.inferencers.worded:Worded",
        "another inferencer's answers as an assistant would word them",
        "tiny-lvlm-ehub",
    ),
)
