"""The page's style sheet."""

from __future__ import annotations

import re

__all__ = ["STYLE", "colour"]

STYLE = """
:root {
  color-scheme: light dark;
  --page: #fbfaf8; --card: #ffffff; --ink: #23262b; --soft: #5d646e; --line: #e3e1dc; --grid: #ecebe7;
  --blue: #2f6cab; --orange: #c2622a; --green: #3d7f5b; --violet: #7a5aa6; --limit: #9aa1ab; --reach: #e2e3e4;
  --warn-ink: #7a4a00; --warn: #fdf1d8; --warn-line: #e9c984; --good-ink: #23573c;
  --good: #e8f3ec; --good-line: #b9d8c5;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #17191c; --card: #1e2125; --ink: #e4e5e7; --soft: #a0a6af; --line: #33373d; --grid: #2a2e33;
    --blue: #79aee6; --orange: #e8955f; --green: #78c19b; --violet: #b79be0; --limit: #747b86; --reach: #33373d;
    --warn-ink: #f3cf8b; --warn: #3a2f17; --warn-line: #6b5527; --good-ink: #a6d8bc;
    --good: #1d3127; --good-line: #365945;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1100px; margin: 0 auto; padding: 40px 24px 80px; }
h1 { font-size: 30px; line-height: 1.2; margin: 2px 0 14px; font-weight: 650; letter-spacing: -.01em;
  overflow-wrap: anywhere; }
h2 { font-size: 21px; margin: 52px 0 10px; font-weight: 620; letter-spacing: -.005em; }
h3 { font-size: 16px; margin: 26px 0 8px; font-weight: 620; }
p { margin: 8px 0; max-width: 78ch; }
.eyebrow { color: var(--soft); font-size: 14px; margin: 0; }
.lead { font-size: 18px; max-width: 70ch; }
.soft, .note, caption, figcaption { color: var(--soft); font-size: 14px; }
.note { border-left: 3px solid var(--line); padding-left: 12px; }
.badge { display: inline-block; font-size: 14px; font-weight: 600; padding: 3px 12px; border-radius: 99px;
  margin: 4px 8px 4px 0;
  border: 1px solid var(--good-line); background: var(--good); color: var(--good-ink); }
.badge.warn { border-color: var(--warn-line); background: var(--warn); color: var(--warn-ink); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(160px, 1fr)); gap: 12px; margin: 22px 0 6px; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 16px; }
.tile b { display: block; font-size: 27px; line-height: 1.25; font-weight: 640; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 13.5px; line-height: 1.35; display: block; }
.tile.first b { color: var(--blue); }
.wide { overflow-x: auto; margin: 12px 0; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
small { font-weight: 400; color: var(--soft); }
th, td { padding: 7px 8px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--grid); }
th { font-weight: 600; color: var(--soft); vertical-align: bottom; line-height: 1.3; }
th:first-child, td:first-child, .left { text-align: left; }
th:first-child, td:first-child { padding-left: 16px; }
tbody th { color: var(--ink); vertical-align: baseline; }
tbody tr:last-child > * { border-bottom: 0; }
td.strong { font-weight: 650; color: var(--blue); }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); gap: 16px; }
.charts.thirds { grid-template-columns: repeat(auto-fit, minmax(min(300px, 100%), 1fr)); }
figure { margin: 12px 0; background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 14px 16px 12px; min-width: 0; }
.charts figure { margin: 0; }
figcaption { margin-top: 6px; line-height: 1.45; }
figure .title { font-weight: 600; font-size: 14.5px; margin: 0 0 6px; }
.scroll { overflow-x: auto; }
.scroll svg { min-width: 720px; }
svg.chart { display: block; width: 100%; height: auto; }
svg text { font-size: 12px; fill: var(--soft); }
svg .label { fill: var(--ink); }
svg .word { fill: var(--ink); font-weight: 600; paint-order: stroke; stroke: var(--card); stroke-width: 4px;
  stroke-linejoin: round; }
svg .grid { stroke: var(--grid); } svg .zero, svg .axis, svg .tick { stroke: var(--limit); }
svg .bars { stroke: var(--reach); }
svg .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg .dashed { stroke-dasharray: 5 4; } svg .thin { stroke-width: 1.2; }
svg .line.s0 { stroke: var(--blue); } svg .line.s1 { stroke: var(--orange); }
svg .line.s2 { stroke: var(--green); } svg .line.s3 { stroke: var(--violet);
  } svg .line.limit { stroke: var(--limit); }
svg .dot.s0 { fill: var(--blue); } svg .dot.s1 { fill: var(--orange); }
svg .dot.s2 { fill: var(--green); } svg .dot.s3 { fill: var(--violet); }
svg .dot.limit { fill: var(--limit); } svg .dot.faint { fill-opacity: .6; } svg .dot:hover { stroke: var(--ink);
  stroke-width: 2; }
.key { display: inline-block; width: 12px; height: 12px; border-radius: 50%; margin: 0 5px -1px 14px; }
.key.s0 { background: var(--blue); } .key.s1 { background: var(--orange); } .key.s2 { background: var(--green); }
.key.s3 { background: var(--violet); } .key.limit { background: var(--limit); }
.key.rule { height: 0; width: 20px; border-radius: 0; border-top: 2px solid var(--limit); background: none;
  margin-bottom: 4px; }
.key.rule.dashed { border-top-style: dashed; }
.key.band { width: 5px; height: 14px; border-radius: 1px; background: var(--reach); margin-right: 8px; }
.key:first-child { margin-left: 0; }
.maps { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(225px, 100%), 1fr)); gap: 18px; }
.maps h4 { margin: 0; font-size: 15.5px; line-height: 1.35; }
.maps .under { color: var(--soft); font-size: 13.5px; line-height: 1.4; min-height: 2.8em; margin: 0 0 6px; }
.maps .name { color: var(--soft); font-size: 13px; margin: 8px 0 3px; }
.slide { position: relative; }
.maps img { display: block; width: 100%; height: auto; border-radius: 6px; background: #fff;
  border: 1px solid var(--line); }
.scalebar { position: absolute; left: 10px; bottom: 9px; border-top: 3px solid #111; color: #111; font-size: 12px;
  line-height: 1.3;
  padding-top: 1px; text-align: center; text-shadow: 0 0 3px #fff, 0 0 3px #fff; white-space: nowrap; }
.bar { height: 9px; border-radius: 3px; margin-top: 8px; }
.ends { display: flex; justify-content: space-between; color: var(--soft); font-size: 12.5px;
  font-variant-numeric: tabular-nums; }
dl { display: grid; grid-template-columns: minmax(140px, 220px) 1fr; gap: 6px 20px; margin: 12px 0; font-size: 15px; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
ul { padding-left: 20px; max-width: 78ch; } li { margin: 5px 0; }
details { margin: 14px 0; } summary { cursor: pointer; font-weight: 600; font-size: 15px; }
details .wide { max-height: 560px; overflow: auto; } details thead th { position: sticky; top: 0;
  background: var(--card); }
.warning { background: var(--warn); border: 1px solid var(--warn-line); color: var(--warn-ink);
  border-radius: 10px; padding: 6px 18px; }
.warning p { max-width: none; }
footer { margin-top: 56px; padding-top: 14px; border-top: 1px solid var(--line); color: var(--soft);
  font-size: 13.5px; }
@media (min-width: 960px) {
  .maps { grid-template-columns: 1.3fr 1fr 1fr 1fr; }
  .maps > :first-child { position: sticky; top: 16px; align-self: start; }
}
@media (max-width: 560px) { dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: 8px;
  } main { padding: 24px 16px 60px; } }
@media print { figure, .wide, .maps > * { break-inside: avoid; } body { background: #fff; } }
"""


def colour(name: str) -> str:
    """A colour of the light page, such as `blue`, as `#rrggbb`: for pictures that stand alone."""
    found = re.search(rf"--{name}: (#[0-9a-f]{{6}});", STYLE)
    if found is None:
        raise KeyError(name)
    return found[1]
