"""One look for every picture: colours that hold in print, on light and on dark pages, and matplotlib set up with them.

Plots are drawn in the light colours. In SVG each colour is then replaced by the page's CSS variable of the same role,
so that the same drawing follows the reader's light or dark setting; PNG files keep the light colours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from io import StringIO
from pathlib import Path
from typing import Any

# role -> (light, dark). Text keeps a contrast of at least 4.5:1 against its background, series one of 3:1 (WCAG 2.2).
# Colours are never the only sign: every series has its own marker, every verdict its own word.
COLOURS: dict[str, tuple[str, str]] = {
    "ink": ("#1d2330", "#e6e9ef"),
    "muted": ("#626b7a", "#9aa4b5"),
    "line": ("#dfe3ea", "#2e3543"),
    "paper": ("#fefefe", "#161a22"),
    "card": ("#f6f7f9", "#1d222c"),
    "good": ("#18794e", "#4cc38a"),
    "bad": ("#c62a2f", "#ff8b85"),
    "s0": ("#3d4a63", "#b7c3d9"),
    "s1": ("#1668c7", "#69a9f5"),
    "s2": ("#b54f00", "#f19a4f"),
    "s3": ("#7a3fb0", "#c193ee"),
    "s4": ("#00786c", "#3fc1b0"),
    "s5": ("#a8216b", "#f07db4"),
    "s6": ("#6f6200", "#d0bd3a"),
    "s7": ("#8a3a2b", "#e08d7c"),
}
SERIES = tuple(name for name in COLOURS if re.fullmatch(r"s\d", name))
MARKERS = ("s", "o", "^", "D", "v", "P", "X", "*")


def colour(role: str) -> str:
    """The light colour of a role."""
    return COLOURS[role][0]


def css_variables() -> str:
    """The colours as CSS custom properties, light by default and dark where the reader's system asks for it."""
    light, dark = ("".join(f"--{name}:{pair[i]};" for name, pair in COLOURS.items()) for i in (0, 1))
    return f":root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}"


@contextmanager
def style() -> Iterator[None]:
    """matplotlib with this theme, for the figures made inside."""
    import matplotlib as mpl
    from cycler import cycler

    settings: Any = {
        "axes.edgecolor": colour("muted"),
        "axes.labelcolor": colour("muted"),
        "axes.linewidth": 0.8,
        "axes.prop_cycle": cycler(color=[colour(name) for name in SERIES[1:]]),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlecolor": colour("ink"),
        "axes.titlelocation": "left",
        "axes.titlesize": 11,
        "figure.facecolor": colour("paper"),
        "axes.facecolor": "none",
        "font.size": 10,
        "grid.alpha": 1.0,
        "grid.color": colour("line"),
        "grid.linewidth": 0.7,
        "legend.fontsize": 9,
        "legend.frameon": False,
        "svg.fonttype": "none",
        "svg.hashsalt": "argus",
        "text.color": colour("ink"),
        "xtick.color": colour("muted"),
        "ytick.color": colour("muted"),
    }
    with mpl.rc_context(settings):
        yield


def save_png(figure: Any, path: Path) -> Path:
    """The figure as a PNG in the light colours; call inside `style()`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=160, metadata={"Software": None})
    return path


def inline_svg(figure: Any, description: str) -> str:
    """The figure as an `<svg>` element for a page; call inside `style()`.

    Themed by CSS variables, scaled by its container, described for readers who do not see it, and equal to the byte for
    equal figures.

    Args:
        figure: a matplotlib figure.
        description: what the plot shows, in a sentence.
    """
    out = StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' id="[a-zA-Z]\w*_\d+"', "", text)  # axes_1, ...: repeated from plot to plot, used by none
    text = re.sub(r"(<svg[^>]*?) width=\"[^\"]*\"", r"\1", text)
    text = re.sub(r"(<svg[^>]*?) height=\"[^\"]*\"", r"\1", text)
    text = re.sub(r"font: (?:\w+ )?([\d.]+px)[^;\"]*", r"font-size: \1; font-family: inherit", text)
    text = re.sub(r"font-family: '[^;\"]*", "font-family: inherit", text)
    for role, (light, _) in COLOURS.items():
        text = text.replace(light, f"var(--{role})")
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1).strip()
