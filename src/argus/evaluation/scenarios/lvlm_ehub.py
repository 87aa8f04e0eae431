"""LVLM-eHub (arXiv 2306.09265): 47 data sets in six capabilities, a file or folder each, in the forms of their publication.

    <set>/dataset.json, <set>.json, .jsonl, .txt, .csv        (their rows: `argus.evaluation.scenarios.lvlm_ehub_rows`)

The first right answer is the target, further ones are `answers` in the metadata. Numbers come per set and per capability. No set
has a metric of its own: metrics are named in the recipe, `only` chooses the sets that they fit. Rows without a question get the
prompt of their set; prompts differ between LVLM-eHub and Tiny LVLM-eHub, so every sample says in its metadata whose it has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from argus.core.errors import ArgusError, DataError, nearest
from argus.core.formats import KEPT_ERRORS
from argus.core.images import load_image
from argus.core.registry import Options
from argus.core.sample import ImagePart, Message, Sample, TextPart
from argus.evaluation.scenarios.base import Group, Scenario, part
from argus.evaluation.scenarios.lvlm_ehub_rows import FORMS, Row, key
from argus.evaluation.scenarios.published import Download

# Capability -> its sets, as their files are called.
CAPABILITIES: dict[str, tuple[str, ...]] = {
    "visual perception": (
        *("ImageNet", "CIFAR10", "OxfordIIITPet", "Flowers102", "VCR1_OC", "VCR1_MCI", "MSCOCO_OC", "MSCOCO_MCI"),
        *("ImageNet1K", "Pets37", "VCR_OC", "VCR_MCI"),
    ),
    "visual knowledge acquisition": (
        *("IIIT5K", "IC13", "IC15", "Total-Text", "CUTE80", "SVT", "SVTP", "COCO-Text", "WordArt", "CTW", "HOST", "WOST"),
        *("SROIE", "FUNSD", "NoCaps", "Flickr", "Flickr30k", "WHOOPSCaption"),
    ),
    "visual reasoning": (
        *("DocVQA", "TextVQA", "STVQA", "OCRVQA", "OKVQA", "GQA", "Visdial", "IconQA", "VSR", "WHOOPS", "WHOOPSVQA"),
        *("ScienceQA", "ScienceQAIMG", "VizWiz", "SNLI-VE"),
    ),
    "visual commonsense": (*(f"ImageNetVC_{part}" for part in ("color", "shape", "material", "component", "others")), "VCR"),
    "object hallucination": ("MSCOCO_pope_random", "MSCOCO_pope_popular", "MSCOCO_pope_adversarial"),
    "embodied intelligence": ("Minecraft", "MinecraftPolicy", "VirtualHome", "MetaWorld", "FrankaKitchen"),
}
CLASSES = ("ImageNet", "ImageNet1K", "CIFAR10", "OxfordIIITPet", "Pets37", "Flowers102")
CAPTIONS = ("NoCaps", "Flickr", "Flickr30k", "WHOOPSCaption")
OCR = CAPABILITIES["visual knowledge acquisition"][:12]
PUBLISHED = {  # items, where they are known
    **dict(zip(CAPABILITIES["object hallucination"], (2910, 3000, 3000), strict=True)),
    **dict(zip(CAPABILITIES["visual commonsense"], (557, 424, 430, 1114, 1551), strict=False)),
}
PROMPTS: dict[str, str] = {
    **dict.fromkeys(CLASSES, "The photo of the"),
    **dict.fromkeys(OCR, "what is written in the image?"),
    **dict.fromkeys(CAPTIONS, "what is described in the image?"),
}


CAPABILITY = {key(name): capability for capability, names in CAPABILITIES.items() for name in names}


class LVLMEHubOptions(Options):
    """The download, and what of it is asked."""

    path: Path = Field(description="folder with a file or a folder per set, or the file of one set")
    only: list[str] = Field(default_factory=list, description="names of the sets to ask; all when empty")
    pictures: Path | None = Field(None, description="folder that pictures' paths begin in; the file's own when not given")


class LVLMEHub(Scenario):
    """Reads one set after the other."""

    Options: ClassVar[type[LVLMEHubOptions]] = LVLMEHubOptions
    options: LVLMEHubOptions
    benchmark: ClassVar[str] = "lvlm-ehub"
    prompts: ClassVar[Mapping[str, str]] = PROMPTS
    published: ClassVar[Mapping[str, int]] = PUBLISHED

    def __init__(self, options: LVLMEHubOptions) -> None:
        super().__init__(options)
        found = {key(name): name for name in self.files}
        for name in options.only:
            if key(name) not in found:
                raise DataError(f"there is no set '{name}'.", where=str(options.path), hint=nearest(name, found.values()))

    @cached_property
    def files(self) -> dict[str, Path]:
        """Set -> its file, by name."""
        path = self.options.path
        if path.is_file():
            return {path.parent.name if path.stem == "dataset" else path.stem: path}
        if not path.is_dir():
            beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
            raise DataError("there is no such folder.", where=str(path), hint=nearest(path.name, beside))
        found = {p.stem: p for p in sorted(path.iterdir()) if p.suffix in FORMS}
        found |= {p.parent.name: p for p in sorted(path.glob("*/dataset.json"))}
        if not found:
            raise DataError("the folder holds no sets: no <set>/dataset.json, <set>.json, .txt or .csv", where=str(path))
        return dict(sorted(found.items()))

    def rows(self, name: str) -> list[Row | DataError]:
        """The items of a set, in their order."""
        file = self.files[name]
        return list(FORMS[file.suffix](file, self.options.pictures or file.parent))

    def chosen(self, name: str, rows: list[Row | DataError]) -> list[Row | DataError]:
        """Which items of a set are asked."""
        return rows

    @property
    def domain(self) -> str:
        """What the numbers are numbers of."""
        return self.benchmark

    def items(self) -> Iterator[Sample | DataError]:
        """Every chosen item; a `DataError` in place of one that cannot be read."""
        only = set(map(key, self.options.only))
        for name in self.files:
            if not only or key(name) in only:
                try:
                    rows = self.chosen(name, self.rows(name))
                except DataError as error:
                    rows = [error]
                for number, row in enumerate(rows):
                    try:
                        yield row if isinstance(row, DataError) else self.sample(name, number, row)
                    except DataError as error:
                        yield error

    def sample(self, name: str, number: int, row: Row) -> Sample:
        """A row as asked.

        Raises:
            DataError: it has no question, and its set no prompt.
        """
        prompt = {key(one): text for one, text in self.prompts.items()}.get(key(name))
        text = row.question or prompt
        if not text:
            raise DataError(f"no question, and '{name}' has no prompt of its own", where=row.where)
        capability = CAPABILITY.get(key(name))
        metadata = {
            "family": name,
            "domain": self.domain,
            "branches": [capability] if capability else [],
            "answers": list(row.golds[1:]),
            "prompts": self.benchmark if not row.question else "as published",
            "source": row.where,
            "picture": "|".join(map(str, row.pictures)),
        }
        message = Message("user", [*map(ImagePart, row.pictures), TextPart(text)])
        return Sample(f"{self.domain}/{name}/{number}", [message], row.golds[0], list(row.options), metadata)

    def groups(self, samples: int | None, seed: int) -> Iterator[Group]:
        errors: dict[str, str] = {}
        stream = part(self.items(), samples, seed, errors)
        for picture, members in groupby(stream, key=lambda sample: sample.metadata["picture"]):
            yield Group(picture, list(members))
        if errors:
            yield Group(f"{self.options.path}#unreadable", [], errors)

    def check(self) -> Download:
        """Read everything, pictures included, and say what is wrong with it."""
        found: Counter[str] = Counter()
        problems: list[str] = []
        bad = 0
        for item in self.items():
            try:
                if isinstance(item, DataError):
                    raise item
                for image in item.images():
                    load_image(image, where=item.metadata["source"])
                found[item.metadata["family"]] += 1
            except ArgusError as error:
                bad += 1
                problems += [error.text()][: KEPT_ERRORS - len(problems)]
        known = {key(name): count for name, count in self.published.items()}
        sets = [name for name in self.files if not self.options.only or key(name) in map(key, self.options.only)]
        return Download(
            str(self.options.path), {n: found[n] for n in sets}, {n: known.get(key(n)) for n in sets}, {}, bad, problems
        )
