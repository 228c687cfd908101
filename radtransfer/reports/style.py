"""How a report looks: on a wide screen, in a narrow window, and in print."""

STYLE = """
:root { --ink: #1b1f24; --soft: #57606a; --line: #d5dae0; --tint: #f5f7f9; --accent: #0b5c93; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body { margin: 0 auto; max-width: 58rem; padding: 3rem 1.5rem 4rem; color: var(--ink); background: #fff;
  font: 1.0625rem/1.6 Charter, "Bitstream Charter", "Sitka Text", Cambria, Georgia, serif; }
h1 { font-size: 2.1rem; line-height: 1.2; margin: 0; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { font-size: 1.4rem; line-height: 1.3; margin: 0 0 .9rem; padding-top: 1.4rem; border-top: 2px solid var(--ink); }
header p { color: var(--soft); margin: .4rem 0 0; overflow-wrap: anywhere; }
p { margin: 0 0 1rem; max-width: 44rem; overflow-wrap: break-word; }
.kept { white-space: pre-wrap; font-size: .94rem; line-height: 1.5; }
a { color: var(--accent); text-decoration-thickness: 1px; text-underline-offset: .15em; }
.facts { display: flex; flex-wrap: wrap; gap: .6rem 2.4rem; margin: 1.4rem 0 0; }
.facts div { min-width: 0; }

  facts dt, figcaption, table, nav, .verdict, .evidence, footer { font-family: system-ui, "Segoe UI", Roboto, Helvetica,
  Arial, sans-serif; }
.facts dt { font-size: .78rem; color: var(--soft); }
.facts dd { margin: 0; font-size: 1.15rem; font-weight: 600; overflow-wrap: anywhere; }
nav { margin: 1.8rem 0 2.6rem; font-size: .9rem; border-block: 1px solid var(--line); padding: .6rem 0; }
nav ol { display: flex; flex-wrap: wrap; gap: .3rem 1.5rem; list-style: none; margin: 0; padding: 0; }
section { margin: 0 0 2.8rem; }
.points { list-style: none; margin: 0 0 1.2rem; padding: 0; }
.points li { padding: .65rem 0 .65rem 1rem; border-left: 3px solid var(--accent); margin: 0 0 .7rem;
  background: var(--tint);
  padding-right: 1rem; overflow-wrap: anywhere; }
.verdict { display: inline-block; font-size: .75rem; font-weight: 700; letter-spacing: .02em;
  border: 1.5px solid var(--ink);
  border-radius: 3px; padding: 0 .45em; margin-right: .35em; line-height: 1.5; background: #fff; }
.evidence { display: block; font-size: .84rem; line-height: 1.45; color: var(--soft); margin-top: .2rem; }
figure { margin: 1.6rem 0 2rem; }
figure img { display: block; width: 100%; height: auto; }
figure.narrow img { max-width: 30rem; }
.scroll { overflow-x: auto; }
.scroll:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
figcaption { font-size: .86rem; line-height: 1.5; color: var(--soft); max-width: 50rem; margin: .5rem 0;
  overflow-wrap: anywhere; }
figcaption b { color: var(--ink); }
table { border-collapse: collapse; font-size: .86rem; line-height: 1.4; font-variant-numeric: tabular-nums;
  width: 100%;
  border-block: 2px solid var(--ink); }
th, td { text-align: right; padding: .32rem .7rem; vertical-align: top; white-space: nowrap; }
th { font-weight: 600; box-shadow: inset 0 -1px var(--ink); vertical-align: bottom; white-space: normal;
  position: sticky; top: 0; background: #fff; }
td { border-bottom: 1px solid var(--line); }
th.name, td.name { text-align: left; white-space: normal; overflow-wrap: break-word; max-width: 24rem; }
.long { max-height: 34rem; overflow-y: auto; border-block: 1px solid var(--line); } .long table { border-block: 0; }
.dense table { font-size: .78rem; } .dense th, .dense td { padding-inline: .35rem; }
td.again { color: #a3abb3; }
tbody tr:last-child td { border-bottom: 0; }
tbody tr:hover td { background: var(--tint); }
footer { font-size: .8rem; color: var(--soft); border-top: 1px solid var(--line); padding-top: .8rem; }
@media (max-width: 40rem) {
  body { padding: 1.4rem 1rem 2.5rem; font-size: 1rem; } h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; }
  figure.wide img { min-width: 32rem; } th, td { padding: .3rem .5rem; }
}
@media print {
  @page { margin: 18mm 15mm; }
  body { max-width: none; padding: 0; font-size: 10.5pt; } nav { display: none; } a { color: inherit; }
  h2 { break-after: avoid; } figure.wide, figure.narrow, .points li, tr { break-inside: avoid; }
  .scroll { overflow: visible; max-height: none; } th { position: static; }
  table { font-size: 8pt; } th, td { padding: 2pt 4pt; }
}
"""
