"""The procedural visual world: scenes with exact truth, renderers and questions, one file per domain."""

from argus.core.registry import Component

COMPONENTS = (
    Component("domain", "objects", "argus.world.objects:Objects", "coloured shapes on varied grounds"),
    Component("domain", "documents", "argus.world.documents:Documents", "words and lines of text in several fonts and sizes"),
    Component("domain", "tables", "argus.world.tables:Tables", "tables of numbers and words"),
    Component("domain", "charts", "argus.world.charts:Charts", "bar, line and pie charts"),
    Component("domain", "novel", "argus.world.novel:Novel", "made-up words for colours, known from demonstrations alone"),
    Component(
        "domain",
        "clips",
        "argus.world.clips:Clips",
        "short videos of things that appear, vanish, move, change colour",
        "seed-bench",
    ),
    Component(
        "domain", "described", "argus.world.described:Described", "words for pictures, pictures to choose from", "seed-bench-2"
    ),
    Component("domain", "interleaved", "argus.world.interleaved:Interleaved", "three pictures inside a text", "seed-bench-2"),
    Component(
        "domain", "languages", "argus.world.languages:Languages", "sentences of made-up languages for icons of topics", "mvl-sib"
    ),
    Component("domain", "marked", "argus.world.marked:Marked", "things in frames, asked about without a word", "seed-bench-2"),
    Component(
        "domain", "puzzles", "argus.world.puzzles:Puzzles", "questions that take one to four steps, each of them known", "core-mm"
    ),
    Component("domain", "stories", "argus.world.stories:Stories", "a picture per step, a hero who changes", "mmie"),
    Component(
        "domain", "sensors", "argus.world.sensors:Sensors", "the objects as colour, heat, distance and density show them", "spark"
    ),
)
