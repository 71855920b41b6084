"""The frame of the report: style sheet and page. All is inside the file; a policy forbids it to ask elsewhere."""

from __future__ import annotations

from html import escape

_STYLE = """
:root { color-scheme: light dark; --ground: #fff; --card: #f5f6f8; --ink: #17191c; --soft: #565d66; --rule: #d9dde2;
  --accent: #0067a5; --second: #b34a00; --third: #00795a; --fourth: #a0417e; --fifth: #6b6100;
  --better: #00744f; --worse: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #14161a; --card: #1e2127; --ink: #eceef1; --soft: #a6adb7; --rule: #383d45;
    --accent: #5cb3ea; --second: #f09a54; --third: #4cc9a0; --fourth: #e79cc6; --fifth: #d9cd5a;
    --better: #4cc9a0; --worse: #ff8f85; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1280px; margin: 0 auto; padding: 24px 20px 56px; }
h1 { font-size: clamp(1.4rem, 1rem + 2vw, 2.1rem); line-height: 1.2; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 44px 0 6px; }
h3 { font-size: 1.02rem; margin: 24px 0 8px; }
p { margin: 0 0 14px; max-width: 76ch; }
.soft, figcaption, .note { color: var(--soft); }
.note { font-size: .9rem; margin-top: 8px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); gap: 12px; margin: 18px 0 8px; }
.tile { background: var(--card); border-radius: 10px; padding: 12px 14px; }
.tile b { display: block; font-size: 1.7rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.tile > span { color: var(--soft); font-size: .88rem; }
.scene { margin: 0 0 26px; }
.scene p { margin: 0 0 5px; font-weight: 600; font-size: .92rem; overflow-wrap: anywhere; }
.strip { display: grid; grid-template-columns: repeat(3, 1fr); gap: 10px; }
.strip > figure, .case figure { margin: 0; min-width: 0; }
img { display: block; width: 100%; height: auto; border-radius: 6px; background: var(--card); }
figcaption { font-size: .85rem; margin-top: 4px; }
.legend { display: flex; flex-wrap: wrap; gap: 6px 22px; font-size: .9rem; margin: 0 0 20px; padding: 0;
  list-style: none; }
.legend svg { width: 34px; height: 18px; vertical-align: -3px; margin-right: 7px; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 16px; }
.chart { background: var(--card); border-radius: 10px; padding: 14px; margin: 0; }
.chart h3 { margin: 0 0 8px; }
.chart > svg { display: block; width: 100%; height: auto; }
.chart text { fill: var(--ink); font-size: 14px; font-family: inherit; font-variant-numeric: tabular-nums; }
.chart .faint { fill: var(--soft); font-size: 13px; }
.chart .value { font-weight: 600; }
.chart .rule { stroke: var(--rule); }
.chart .bar { fill: var(--accent); }
.chart .line { fill: none; stroke-width: 2.5; stroke: var(--accent); }
.chart .line1 { stroke: var(--second); stroke-dasharray: 7 4; }
.chart .line2 { stroke: var(--third); stroke-dasharray: 2 3; }
.chart .line3 { stroke: var(--fourth); stroke-dasharray: 9 3 2 3; }
.chart .line4 { stroke: var(--fifth); stroke-dasharray: 14 4; }
.better { color: var(--better); font-weight: 600; }
.worse { color: var(--worse); font-weight: 600; }
.same { color: var(--soft); }
.tile small { font-size: .88rem; }
.runs td small { display: block; color: var(--soft); white-space: nowrap; }
.runs th { overflow-wrap: anywhere; min-width: 6rem; }
.prior { background: var(--card); border-radius: 10px; padding: 4px 14px 14px; margin: 0 0 16px; }
.prior h3 { margin: 10px 0 0; }
.prior .where { font-size: .88rem; margin: 0; overflow-wrap: anywhere; }
.prior img { width: auto; max-width: 100%; margin: 0 auto; }
.prior figcaption { text-align: center; }
.key { display: flex; flex-wrap: wrap; gap: 2px 18px; font-size: .9rem; margin: 12px 0 6px; padding: 0;
  list-style: none; }
.prior .key li:first-child { font-weight: 600; }
.key svg { width: 22px; height: 16px; margin-right: 6px; vertical-align: -3px; }
.key + .note { margin: 0 0 8px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .95rem; }
th, td { text-align: right; padding: 6px 14px; border-bottom: 1px solid var(--rule); vertical-align: top; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
thead th { color: var(--soft); font-weight: 600; }
tbody th { font-weight: 500; }
tbody th small { display: block; color: var(--soft); font-weight: 400; max-width: 46ch; line-height: 1.35; }
.cases { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 360px), 1fr)); gap: 14px; }
.case { background: var(--card); border-radius: 10px; padding: 10px; margin: 0; }
.case .pair { display: grid; grid-template-columns: 1fr 1fr; gap: 8px; }
.case p { margin: 8px 2px 0; font-size: .88rem; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 20px; margin: 0; font-size: .95rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 640px) {
  main { padding: 18px 14px 40px; }
  .strip { display: flex; gap: 8px; overflow-x: auto; scroll-snap-type: x mandatory; }
  .strip > figure { flex: 0 0 88%; scroll-snap-align: start; }
  .strip > .input { order: 3; }
  th, td { padding: 6px 5px; }
  tbody th:has(small) { min-width: 7.5rem; }
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: 8px; }
}
@media print { .scene, .case, .chart, .key, .prior .strip { break-inside: avoid; } }
"""

_LEGEND = """
<ul class="legend">
<li><svg viewBox="0 0 34 18" aria-hidden="true"><rect x="1" y="1" width="32" height="16" rx="3" fill="#0072b2"
 fill-opacity=".45" stroke="#0072b2" stroke-width="2"/></svg>filled: visible part</li>
<li><svg viewBox="0 0 34 18" aria-hidden="true"><defs><pattern id="hatch" width="6" height="6"
 patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="2.4" height="6" fill="#0072b2"/></pattern>
</defs><rect x="1" y="1" width="32" height="16" rx="3" fill="url(#hatch)" stroke="#0072b2"
 stroke-width="2"/></svg>hatched: hidden part</li>
<li><svg viewBox="0 0 34 18" aria-hidden="true"><rect x="1.5" y="1.5" width="31" height="15" fill="none"
 stroke="#0072b2"/></svg>thin frame: amodal box</li>
</ul>
"""


def legend() -> str:
    """How to read the pictures."""
    return _LEGEND


def page(title: str, body: str) -> str:
    """The whole file.

    Args:
        title: plain text.
        body: markup, already escaped.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )
