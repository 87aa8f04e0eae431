from hypothesis import given
from hypothesis import strategies as st

from argus.report.plots import cost_plot, pareto, series
from argus.report.summary import Summary, Variant
from argus.report.theme import COLOURS, css_variables, inline_svg, style


def contrast(a: str, b: str) -> float:
    """WCAG contrast ratio of two colours."""

    def luminance(text: str) -> float:
        parts = [int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@given(st.dictionaries(st.text("ab", min_size=1, max_size=4), st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1))
def test_the_front_is_what_brute_force_finds(points: dict[str, tuple[int, int]]) -> None:
    def beaten(name: str) -> bool:
        cost, score = points[name]
        return any(c <= cost and s >= score and (c < cost or s > score) for c, s in points.values())

    front = pareto({name: (float(c), float(s)) for name, (c, s) in points.items()})
    assert {points[name] for name in front} == {points[name] for name in points if not beaten(name)}
    assert [points[n] for n in front] == sorted(points[n] for n in front)


def test_variants_of_one_technique_share_a_colour() -> None:
    numbers = series([Variant("full"), Variant("a-50", "a"), Variant("b-50", "b"), Variant("a-25", "a")])
    assert numbers == {"": 0, "a": 1, "b": 2}


def test_text_is_readable_on_both_backgrounds() -> None:
    for theme in (0, 1):
        paper, card = COLOURS["paper"][theme], COLOURS["card"][theme]
        for role in ("ink", "muted", "good", "bad"):
            assert contrast(COLOURS[role][theme], paper) >= 4.5
            assert contrast(COLOURS[role][theme], card) >= 4.5
        for role, pair in COLOURS.items():
            if role.startswith("s"):
                assert contrast(pair[theme], paper) >= 3


def test_svg_is_deterministic_themed_and_described(summary: Summary) -> None:
    def drawn() -> str:
        with style():
            return inline_svg(cost_plot(summary.evaluated[0], summary.variants, "accuracy", "ttft_ms"), 'says "what" it shows')

    svg = drawn()
    assert svg == drawn()
    assert svg.startswith('<svg role="img" aria-label="says &quot;what&quot; it shows"')
    assert "var(--s1)" in svg
    assert not any(light in svg for light, _ in COLOURS.values())  # every colour follows the page's theme
    assert "font-family: inherit" in svg
    assert "DejaVu" not in svg
    assert 'id="axes_1"' not in svg
    assert "fastervlm" in svg  # text stays text


def test_every_colour_has_a_light_and_a_dark_variable() -> None:
    css = css_variables()
    light, dark = css.split("@media (prefers-color-scheme:dark)")
    assert all(f"--{role}:{pair[0]}" in light and f"--{role}:{pair[1]}" in dark for role, pair in COLOURS.items())
