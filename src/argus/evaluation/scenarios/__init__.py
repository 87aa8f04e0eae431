"""Scenarios: what is asked, as groups of questions about the same pictures."""

from argus.core.registry import Component

COMPONENTS = (
    Component("scenario", "world", "argus.evaluation.scenarios.world:World", "questions of the procedural world, leak-free"),
    Component(
        "scenario",
        "wrong_picture",
        "argus.evaluation.scenarios.wrong_picture:WrongPicture",
        "another scenario's questions, each about the next group's pictures",
    ),
    Component(
        "scenario", "circular", "argus.evaluation.scenarios.circular:Circular", "every question once per rotation of its options"
    ),
    Component(
        "scenario",
        "dimensions",
        "argus.evaluation.scenarios.dimensions:Dimensions",
        "a taxonomy: other scenarios as dimensions, with averages over branches",
    ),
    Component(
        "scenario",
        "mmdu",
        "argus.evaluation.scenarios.mmdu:MMDU",
        "MMDU's dialogues about several pictures, a question per turn",
        "mmdu",
    ),
    Component(
        "scenario",
        "mmdu_world",
        "argus.evaluation.scenarios.mmdu_world:MMDUWorld",
        "dialogues about albums of drawn scenes, in MMDU's form",
        "mmdu",
    ),
    Component(
        "scenario",
        "touchstone",
        "argus.evaluation.scenarios.touchstone:TouchStone",
        "TouchStone's items: pictures with descriptions and reference answers",
        "touchstone",
    ),
    Component(
        "scenario",
        "touchstone_world",
        "argus.evaluation.scenarios.touchstone_world:TouchStoneWorld",
        "TouchStone on drawn scenes, whose truth a scripted judge knows",
        "touchstone",
    ),
    Component("scenario", "file", "argus.evaluation.scenarios.file:File", "any dataset that argus can read"),
    Component(
        "scenario",
        "seed_bench",
        "argus.evaluation.scenarios.seed_bench:SeedBench",
        "SEED-Bench from its published files: 12 dimensions of pictures and videos",
        "seed-bench",
    ),
    Component(
        "scenario",
        "seed_bench_2",
        "argus.evaluation.scenarios.seed_bench_2:SeedBench2",
        "SEED-Bench-2 from its published files: 27 dimensions in levels L1 to L3",
        "seed-bench-2",
    ),
)
