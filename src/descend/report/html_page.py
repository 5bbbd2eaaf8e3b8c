"""A page of HTML that needs nothing beside itself: no network, no script; light or dark."""

from collections.abc import Iterable, Sequence
from html import escape

from descend.format import printable

LIGHT = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8C6D00", "#4B4B4B", "#56B4E9", "#A6399E")
DARK = ("#5AB4E8", "#FF8A4C", "#35C79A", "#F0A6CC", "#D9B84A", "#C8C8C8", "#9AD0F5", "#D98AD3")


def html_page(title: str, parts: Iterable[str], *, lines: int, style: str = "") -> str:
    """Put a page together.

    Args:
        title: of it, in plain text.
        parts: its body, in HTML.
        lines: how many colours it needs: what has the class `r3` is of the fourth one, and is
            hidden where that is unticked in the legend.
        style: more of CSS.
    """
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html_text(title)}</title><style>{_style(lines)}{style}</style></head><body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def html_text(text: str) -> str:
    """A text of a file, which could be anything, as HTML.

    Example:
        >>> html_text("a<b")
        'a&lt;b'
    """
    return escape(printable(text))


def legend(names: Sequence[str]) -> str:
    """A name for each colour, with a box to tick."""
    lines = (
        f'<label class="r{number}"><input type="checkbox" id="r{number}" checked>'
        f'<svg width="22" height="8"><path d="M0 4H22"/></svg>{html_text(name)}</label>'
        for number, name in enumerate(names)
    )
    return f'<div class="legend">{"".join(lines)}</div>'


def _style(count: int) -> str:
    lines = [STYLE]
    for number in range(count):
        light, dark = LIGHT[number % len(LIGHT)], DARK[number % len(DARK)]
        dash = ("none", "6 3", "2 3")[number // len(LIGHT) % 3]
        lines.append(
            f".r{number}{{--c:light-dark({light},{dark});--d:{dash}}}"
            f"body:has(#r{number}:not(:checked)) svg .r{number}{{display:none}}"
        )
    return "\n".join(lines)


STYLE = """
:root{color-scheme:light dark;--ink:light-dark(#1b1b1b,#e6e6e6);--soft:light-dark(#6a6a6a,#a0a0a0);
--line:light-dark(#e2e2e2,#3a3a3a);--paper:light-dark(#fff,#17181a);
--mark:light-dark(#fff3c4,#4a3f12)}
body{font:15px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--paper);margin:0 auto;
padding:20px;max-width:1500px}
h1{font-size:22px;margin:0 0 10px;overflow-wrap:anywhere}h2{font-size:17px;margin:28px 0 8px}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;margin-bottom:12px}
.legend label{display:flex;align-items:center;gap:6px;cursor:pointer;overflow-wrap:anywhere}
.panels{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(380px,100%),1fr));gap:14px}
figure{margin:0;border:1px solid var(--line);border-radius:8px;padding:8px 10px}
figcaption{font-weight:600;margin-bottom:4px;overflow-wrap:anywhere}
svg{display:block;width:100%;height:auto}.legend svg{width:22px;flex:none}
svg path{fill:none;stroke:var(--c);stroke-width:1.7;stroke-dasharray:var(--d,none);
stroke-linejoin:round}
svg path.grid{stroke:var(--line);stroke-width:1;stroke-dasharray:none}svg circle{fill:var(--c)}
svg text{font-size:12px;fill:var(--soft)}svg .y{text-anchor:end}svg .x{text-anchor:middle}
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:4px 12px 4px 0;border-bottom:1px solid var(--line);vertical-align:top}
thead th{color:var(--soft);font-weight:500}tbody th{font-weight:500}
figcaption small{font-weight:400;color:var(--soft)}
.wide th,.wide td{max-width:17rem;min-width:3.5rem;overflow-wrap:break-word}
.wide th:first-child{position:sticky;left:0;background:var(--paper);min-width:7rem}
th[class]{position:relative;padding-left:16px;min-width:7.5rem}
.wide th[class],.wide th:first-child{overflow-wrap:anywhere}
th small{color:var(--soft);font-weight:400;margin-left:.4em}
@media(max-width:600px){.wide th:first-child{max-width:8.5rem}svg text{font-size:14px}}
td small{display:block;color:var(--soft)}td.best{background:var(--mark)}
td.differs{background:var(--mark)}th i{position:absolute;left:0;top:10px;width:10px;height:10px;
border-radius:2px;background:var(--c)}details{margin-top:12px}
summary{cursor:pointer;color:var(--soft)}
p{color:var(--soft)}
"""
