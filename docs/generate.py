"""mkdocs hook: writes the reference pages from the registry, the papers' catalogue and the recipes' schema.

The pages exist only while mkdocs builds, so they can never disagree with the code.
"""

from __future__ import annotations

from typing import Any

from mkdocs.structure.files import File, Files


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages to the site."""
    pages = (("components.md", components_page()), ("papers.md", papers_page()), ("models.md", models_page()))
    for name, text in pages:
        files.append(File.generated(config, name, content=text))
    return files


def components_page() -> str:
    """Every component with its options."""
    from argus.core.registry import PACKAGES, components

    lines = ["# Components", "", "Every component, by kind, with its options. `argus components` prints the same.", ""]
    for kind in sorted(PACKAGES):
        rows = components(kind)
        if not rows:
            continue
        lines += [f"## {kind}", ""]
        for row in rows:
            lines += [f"### `{row.name}`", "", f"{row.summary[0].upper()}{row.summary[1:]}.", ""]
            if row.paper:
                lines += [f"Paper: [{row.paper}](papers.md).", ""]
            lines += options_table(row.load().Options)
    return "\n".join(lines)


def options_table(model: Any) -> list[str]:
    """A component's options as a table; nothing when it has none."""
    if not model.model_fields:
        return []
    lines = ["| option | type | default | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        kind = str(field.annotation).replace("typing.", "").replace("<class '", "").replace("'>", "").replace("|", "\\|")
        default = "required" if field.is_required() else repr(field.get_default(call_default_factory=True))
        lines.append(f"| `{name}` | {kind} | {default} | {field.description or ''} |")
    return [*lines, ""]


def papers_page() -> str:
    """The catalogue of papers with what was measured."""
    from argus.core.papers import to_json

    papers = to_json()
    counts = {s: sum(p["status"] == s for p in papers) for s in ("measured", "built", "planned")}
    lines = [
        "# Papers",
        "",
        f"{counts['measured']} measured, {counts['built']} built, {counts['planned']} planned. "
        "*Measured* is derived from a recorded run, never typed.",
        "",
        "| paper | area | status | claims |",
        "|---|---|---|---|",
    ]
    for paper in sorted(papers, key=lambda p: ("measured", "built", "planned").index(p["status"])):
        title = f"[{paper['title']}](https://arxiv.org/abs/{paper['arxiv']})" if paper.get("arxiv") else paper["title"]
        claims = "<br>".join(f"{'✓' if c.get('holds') else '✗'} `{c['claim']}`" for c in paper["claims"] if "holds" in c)
        status = paper["status"] + (f" ({paper['note']})" if paper["note"] else "")
        lines.append(f"| **{paper['name']}** (`{paper['slug']}`): {title} | {paper['area']} | {status} | {claims} |")
    return "\n".join(lines)


MODELS = """# Reference models

Small models trained only on the procedural world, by recipes in `recipes/reference/`, shipped as safetensors with the package.
`argus models` lists them; `scores.json` in each folder holds every number with its interval, the command, commit and machine.

What limits argus/tiny-vlm is an hour on two cores: its loss still fell at the last step. What takes two things at once - a
relation, the larger of two bars, the order of two words - is answered by yes or no, one bit a question, and not learned from so
few.

To train one again:

    argus run recipes/reference/tiny-vlm.yaml
    python recipes/reference/ship.py runs/tiny-vlm/<time>/stages/tiny_vlm/all/model tiny-vlm
"""


def models_page() -> str:
    """The shipped models with their recorded scores."""
    import json

    from argus.core.reference import not_better_than_chance, reference_models

    lines = [MODELS]
    for name, folder in reference_models().items():
        scores = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
        lines += [f"## `{name}`", ""]
        if "objects" in scores:
            lines += [
                "| domain | accuracy (95 % interval) | without picture | chance | no better than chance |",
                "|---|---|---|---|---|",
            ]
            for domain, groups in scores.items():
                if "all" in groups:
                    a, blind = groups["all"], groups.get("blind", {}).get("value", float("nan"))
                    interval = f"{a['value']:.1%} ({a['low']:.1%} - {a['high']:.1%})"
                    weak = ", ".join(not_better_than_chance(groups))
                    lines.append(f"| {domain} | {interval} | {blind:.1%} | {groups['chance']['all']:.1%} | {weak} |")
        else:
            shown = {k: v for k, v in scores.items() if k != "measured"}
            lines += ["```json", json.dumps(shown, indent=1), "```"]
        measured = scores["measured"]
        lines += ["", f"`{measured['command']}`, commit {measured['commit']}, {measured['machine']}.", ""]
    return "\n".join(lines)
