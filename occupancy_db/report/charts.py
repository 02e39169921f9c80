"""Charts as SVG within the page: pygal's, and the spans of a day, of which pygal has no chart."""

from collections.abc import Callable, Sequence
from typing import Any

from markupsafe import Markup

from occupancy_db.report.parts import Chart

_WIDTH, _HEIGHT = 520, 230
_SPANS = 720
"""Width of a row of spans: two minutes are a pixel of a desktop, and a busy zone takes a few kilobytes."""


def _options(**more: Any) -> dict[str, Any]:
    """Options of every chart. Its colours are those of the style sheet, light or dark."""
    from pygal.style import Style

    text, muted = "var(--text)", "var(--muted)"
    style = Style(
        background="transparent",
        plot_background="transparent",
        foreground=text,
        foreground_strong=text,
        foreground_subtle=muted,
        guide_stroke_color="var(--line)",
        major_guide_stroke_color="var(--line)",
        guide_stroke_dasharray="0",
        major_guide_stroke_dasharray="0",
        opacity="1",
        opacity_hover="1",
        transition="0s",
        colors=("var(--first)", "var(--second)"),
        font_family="inherit",
        label_font_size=13,
        major_label_font_size=13,
        legend_font_size=13,
    )
    return {
        "style": style,
        "js": (),  # by default, a script of another host
        "width": _WIDTH,
        "height": _HEIGHT,
        "margin": 4,
        "disable_xml_declaration": True,
        "show_legend": False,
        "no_data_text": "",
        "include_x_axis": True,
        **more,
    }


def bars(
    title: str,
    caption: str,
    labels: Sequence[str],
    values: Sequence[float],
    formatter: Callable[[float], str],
    every: int = 1,
) -> Chart:
    """A chart with a bar for each value.

    Args:
        title: Its text alternative.
        caption: The text below it.
        labels: What the bars are.
        values: Their lengths.
        formatter: Writes a value.
        every: How many bars have one label.
    """
    import pygal

    chart = pygal.Bar(
        **_options(
            value_formatter=formatter,
            spacing=0,
            rounded_bars=0,
            show_minor_x_labels=False,
            x_labels_major_every=every,
            truncate_label=-1,
        )
    )
    chart.x_labels = list(labels)
    chart.add("", list(values))
    return Chart(title, _drawing(chart), caption)


def lines(
    title: str,
    caption: str,
    series: dict[str, Sequence[tuple[float, float]]],
    formatter: Callable[[float], str],
    x_formatter: Callable[[float], str],
    **more: Any,
) -> Chart:
    """A chart with a line for each series of points.

    Args:
        title: Its text alternative.
        caption: The text below it.
        series: Points by the name of their line.
        formatter: Writes a value.
        x_formatter: Writes the place of a value.
        more: Further options of pygal.
    """
    import pygal

    chart = pygal.XY(
        **_options(
            # pygal also writes the pair of a point, which nobody sees.
            value_formatter=lambda value: formatter(value) if isinstance(value, int | float) else "",
            x_value_formatter=x_formatter,
            show_legend=len(series) > 1,
            legend_at_bottom=True,
            truncate_legend=-1,
            **more,
        )
    )
    for number, (name, points) in enumerate(series.items()):
        # A dashed line is told from another one without its colour.
        dashes = (
            {"stroke_style": {"width": 2, "dasharray": "6, 4"}} if number else {"stroke_style": {"width": 2}}
        )
        chart.add(name, list(points), dots_size=2.5, **dashes)
    return Chart(title, _drawing(chart), caption)


def _drawing(chart: Any) -> Markup:
    chart.add_xml_filter(_still)
    # pygal escapes what it is given.
    return Markup(chart.render(is_unicode=True))  # noqa: S704


def _still(root: Any) -> Any:
    """Remove what only pygal's script uses: its configuration, the values, and the place of tooltips."""
    for parent in list(root.iter()):
        for child in list(parent):
            classes = child.get("class", "").split()
            if not isinstance(child.tag, str):  # a comment
                continue
            if child.tag.rpartition("}")[2] in {"script", "desc"} or "tooltip" in classes:
                parent.remove(child)
    return root


def spans(title: str, parts: Sequence[tuple[float, float]]) -> Markup:
    """A row of a timeline, with a rectangle for each span.

    Args:
        title: Its text alternative.
        parts: Begin and end of the spans, as shares of the whole: between 0 and 1, ascending.
    """
    # Spans that touch are drawn as one.
    drawn: list[list[int]] = []
    for since, until in parts:
        begin, end = int(since * _SPANS), max(int(since * _SPANS) + 1, round(until * _SPANS))
        if drawn and begin <= drawn[-1][1]:
            drawn[-1][1] = max(drawn[-1][1], end)
        else:
            drawn.append([begin, end])
    path = "".join(f"M{begin} 0h{end - begin}v9H{begin}" for begin, end in drawn)
    return Markup(
        '<svg class="spans" role="img" aria-label="{}" viewBox="0 0 {} 9" preserveAspectRatio="none">'
        '<path d="{}"/></svg>'
    ).format(title, _SPANS, path)
