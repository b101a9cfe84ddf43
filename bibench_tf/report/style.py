"""The style sheet of the HTML report; fonts are those of the reader's system."""

from __future__ import annotations

CSS = """
:root {
  color-scheme: light dark;
  --page: #fdfdfc; --text: #22262b; --soft: #646b74; --rule: #dfe2e6; --stripe: #f5f6f7;
  --tint: #3b7dd85c; --accent: #2563ac; --warn: #9a5b00; --warn-page: #fff6e5; --bad: #a3312b; --bad-page: #fdeeed;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #16191d; --text: #e3e6ea; --soft: #9aa3ad; --rule: #333941; --stripe: #1c2025;
    --tint: #3b7dd88c; --accent: #7db1f0; --warn: #e9b35a; --warn-page: #2b2416; --bad: #f0918a; --bad-page: #2e1c1b;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 66rem; padding: 3rem 1.5rem 4rem; background: var(--page); color: var(--text);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
h1 { font-size: 1.9rem; line-height: 1.2; letter-spacing: -0.015em; margin: 0 0 .6rem; }
h2 { font-size: 1.3rem; letter-spacing: -0.01em; margin: 0 0 .5rem; }
h3 {
  font-size: .8rem; font-weight: 600; margin: 1.6rem 0 .4rem; color: var(--soft); text-transform: uppercase;
  letter-spacing: .05em;
}
h1, h2, p, li, figcaption, dd { overflow-wrap: anywhere; }
p { margin: .4rem 0; max-width: 46rem; }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
section { margin-top: 2.4rem; padding-top: 2rem; border-top: 1px solid var(--rule); }
ul { margin: .3rem 0; padding-left: 1.2rem; max-width: 46rem; }
li { margin: .2rem 0; }
code {
  font: .86em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; background: var(--stripe);
  padding: .15em .4em; border-radius: 4px; overflow-wrap: anywhere;
}
nav { margin-top: 1.1rem; display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; font-size: .92rem; }
.soft, footer { color: var(--soft); font-size: .92rem; }
.badge {
  font-size: .72rem; font-weight: 600; color: var(--warn); background: var(--warn-page); border-radius: 99px;
  padding: .15em .7em; margin-left: .6rem; vertical-align: .2em; letter-spacing: 0; white-space: nowrap;
}
.box { border-radius: 8px; padding: .7rem 1rem; margin: 1rem 0; background: var(--bad-page); max-width: 48rem; }
.box h3 { margin: 0; color: var(--bad); }
.wide { overflow-x: auto; margin: 1.1rem 0; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
.overall table { width: 100%; }
th, td { padding: .42rem .8rem; text-align: left; vertical-align: baseline; }
thead th { border-bottom: 1.5px solid var(--rule); vertical-align: bottom; font-weight: 600; line-height: 1.3; }
thead small { display: block; font-weight: 400; color: var(--soft); white-space: nowrap; }
tbody th { font-weight: 500; white-space: nowrap; }
tbody tr:nth-child(even) { background: var(--stripe); }
tbody tr:last-child > * { border-bottom: 1px solid var(--rule); }
.num { text-align: right; white-space: nowrap; }
thead .num { white-space: normal; }
td.bar {
  padding-bottom: .5rem; background: linear-gradient(var(--tint), var(--tint)) left .8rem bottom .3rem no-repeat;
  background-size: calc((100% - 1.6rem) * var(--share)) 2px;
}
td strong { font-weight: 700; color: var(--accent); }
.none { color: var(--soft); }
.dot { display: inline-block; width: .62em; height: .62em; border-radius: 50%; margin-right: .55em; }
.dot.ring { border: 1.5px dashed currentColor; }
figure { margin: 1.6rem 0; max-width: 52rem; overflow-x: auto; }
figcaption { font-size: .95rem; font-weight: 600; margin-bottom: .5rem; }
figure img { display: block; max-width: 100%; height: auto; }
figure svg { display: block; width: 100%; min-width: 34rem; height: auto; }
dl {
  display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.4rem; margin: .4rem 0; font-size: .92rem;
  max-width: 56rem;
}
dt { color: var(--soft); }
dd { margin: 0; min-width: 0; }
footer { margin-top: 3rem; padding-top: 1.2rem; border-top: 1px solid var(--rule); }
@media (max-width: 40rem) {
  body { padding: 1.5rem 1rem 3rem; }
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .5rem; }
}
@media print { body { max-width: none; padding: 0; } figure, tr { break-inside: avoid; } nav { display: none; } }
""".strip()
