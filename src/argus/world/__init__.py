"""The procedural visual world: scenes with exact truth, renderers and questions, one file per domain."""

from argus.core.registry import Component

COMPONENTS = (
    Component("domain", "objects", "argus.world.objects:Objects", "coloured shapes on varied grounds"),
    Component("domain", "documents", "argus.world.documents:Documents", "words and lines of text in several fonts and sizes"),
    Component("domain", "tables", "argus.world.tables:Tables", "tables of numbers and words"),
    Component("domain", "charts", "argus.world.charts:Charts", "bar, line and pie charts"),
    Component("domain", "novel", "argus.world.novel:Novel", "made-up words for colours, known from demonstrations alone"),
)
