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
        "scenario", "cv_bench", "argus.evaluation.scenarios.cv_bench:CVBench", "CV-Bench from its published files", "cv-bench"
    ),
    Component(
        "scenario",
        "dimensions",
        "argus.evaluation.scenarios.dimensions:Dimensions",
        "a taxonomy: other scenarios as dimensions, with averages over branches",
    ),
    Component(
        "scenario",
        "lvlm_ehub",
        "argus.evaluation.scenarios.lvlm_ehub:LVLMEHub",
        "LVLM-eHub's data sets from their published files, in six capabilities",
        "lvlm-ehub",
    ),
    Component(
        "scenario",
        "lvlm_ehub_world",
        "argus.evaluation.scenarios.lvlm_ehub_world:LVLMEHubWorld",
        "six capabilities on drawn scenes, each answer exact",
        "lvlm-ehub",
    ),
    Component(
        "scenario",
        "mme_results",
        "argus.evaluation.scenarios.mme_results:MMEResults",
        "what models are said to have answered in MME, from the official tool's files",
        "mme-survey",
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
        "mvl_sib",
        "argus.evaluation.scenarios.mvl_sib:MVLSIB",
        "MVL-SIB: pictures and sentences of one topic, in 205 languages",
        "mvl-sib",
    ),
    Component(
        "scenario",
        "spark_sensor",
        "argus.evaluation.scenarios.spark_sensor:SparkSensor",
        "SPARK: pictures of four sensors, perception and reasoning",
        "spark",
    ),
    Component(
        "scenario",
        "tiny_lvlm_ehub",
        "argus.evaluation.scenarios.tiny_lvlm_ehub:TinyLVLMEHub",
        "fifty items of each of LVLM-eHub's sets, chosen as published",
        "tiny-lvlm-ehub",
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
    *(
        Component("scenario", name, f"argus.evaluation.scenarios.{name}:{cls}", summary, "chef")
        for name, cls, summary in (
            ("cifar10", "CIFAR10", "CIFAR-10 in LAMM's form: ten classes"),
            ("flickr30k", "Flickr30k", "Flickr30k in LAMM's form: the right one of four captions, or a written one"),
            ("fsc147", "FSC147", "FSC-147 in LAMM's form: how many"),
            ("mmbench", "MMBench", "MMBench from its table, rotations included"),
            ("mme", "MME", "MME from its folders: yes and no in pairs"),
            ("omnibenchmark", "Omnibenchmark", "Omnibenchmark in LAMM's form: a question per level of a chain of classes"),
            ("pope", "POPE", "POPE from its published files"),
            ("scienceqa", "ScienceQA", "ScienceQA's questions with pictures in LAMM's form"),
            ("voc2012", "VOC2012", "PASCAL VOC 2012 in LAMM's form: which classes, then where"),
        )
    ),
    Component(
        "scenario", "ways", "argus.evaluation.scenarios.ways:Ways", "another scenario's questions, each in several ways", "chef"
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
    Component(
        "scenario",
        "core_mm",
        "argus.evaluation.scenarios.core_mm:CoreMM",
        "CORE-MM's open questions with their reasoning steps",
        "core-mm",
    ),
    Component(
        "scenario",
        "core_mm_world",
        "argus.evaluation.scenarios.core_mm_world:CoreMMWorld",
        "puzzles of one to four known steps, in CORE-MM's form",
        "core-mm",
    ),
    Component(
        "scenario",
        "mmie",
        "argus.evaluation.scenarios.mmie:MMIE",
        "MMIE's questions in texts and pictures, answers with them",
        "mmie",
    ),
    Component(
        "scenario",
        "mmie_world",
        "argus.evaluation.scenarios.mmie_world:MMIEWorld",
        "drawn stories that are to be gone on with, in MMIE's form",
        "mmie",
    ),
)
