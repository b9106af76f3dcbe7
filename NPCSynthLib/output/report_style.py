"""How pages look on the screen and on paper."""

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; color: #1c1c1c;
  background: #fff; }
h1 { margin: 0; } h2 { margin-top: 2.2rem; }
.mark { color: #8a3b00; font-weight: bold; letter-spacing: .04em; margin: 0; }
.small { font-size: .85em; font-weight: normal; color: #444; }
.limits { border: 2px solid #b45309; background: #fffbeb; padding: 0 1rem .4rem; border-radius: 6px; margin-top: 1rem; }
.limits h2 { margin-top: .6rem; }
.alarm { border-left: 4px solid #b91c1c; }
table { border-collapse: collapse; margin: .6rem 0; min-width: 30rem; }
caption { text-align: left; padding-bottom: .3rem; }
th, td { padding: .3rem .8rem; border-bottom: 1px solid #ccc; text-align: left; vertical-align: top; }
tbody th { font-weight: 600; }
table.wide th, table.wide td { padding: .25rem .45rem; font-size: .9em; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
table.fill { width: 100%; } td.tick { width: 4rem; text-align: center; }
table.fill tbody th { width: 45%; }
input[type=checkbox] { width: 1.3em; height: 1.3em; }
input.remark { width: 97%; } input.initials { width: 5em; }
.line { display: inline-block; width: 18em; border-bottom: 1px solid #555; } .line.short { width: 8em; }
img { width: 100%; height: auto; border-radius: 4px; }
figure { margin: 1rem 0; } figcaption { font-weight: 600; }
@page { size: A4; margin: 16mm 14mm;
  @top-center { content: "SYNTHETIC \\2013 research use only \\2013 not a medical device"; font: 9pt sans-serif;
    color: #8a3b00; }
  @bottom-right { content: counter(page) " / " counter(pages); font: 9pt sans-serif; } }
@media print {
  body { font-size: 10pt; max-width: none; margin: 0; padding: 0; } table { min-width: 110mm; }
  h2 { margin-top: 1rem; } figure { margin: .4rem 0; }
  section.pictures, section.checklist { break-before: page; }
  h2, caption { break-after: avoid; } figure, tr, .limits { break-inside: avoid; }
  figure img { max-height: 108mm; width: auto; max-width: 100%; display: block; }
  thead { display: table-header-group; }
  table.wide th, table.wide td { padding: .15rem .25rem; font-size: 7.5pt; }
  .limits, .mark, img { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
  input[type=text] { border: 0; border-bottom: 1px solid #555; min-height: 7mm; }
}
"""
