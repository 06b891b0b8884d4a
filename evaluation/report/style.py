"""The style sheet of the page, in a light and a dark scheme."""

from evaluation.report.svg import DARK, LIGHT, Theme, chart_style


def _variables(theme: Theme) -> str:
    return "".join(f"--{name}:{color};" for name, color in theme._asdict().items())


_PAGE = """
:root{--right:#0072b2;--wrong:#d55e00;color-scheme:light dark}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1180px;margin:0 auto;padding:24px}
h1,h2,h3,h4,figcaption,.head{overflow-wrap:anywhere}
h2{margin-top:2.2em;border-bottom:2px solid var(--line)}h3{margin-top:2em}h5{margin:1em 0 .4em}
.head{list-style:none;padding:0}.up{text-decoration:none;padding:0 .4em}
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:3px 10px;text-align:left;font-weight:normal}thead th{color:var(--soft)}
.wide td{white-space:nowrap}tbody th{min-width:7em;max-width:24em;overflow-wrap:break-word}
tr.first>*{border-top:1px solid var(--line)}.number,thead th:nth-child(n+3){text-align:right}
.networks thead th:nth-child(3){text-align:left}
.networks td:nth-child(2){white-space:normal;max-width:24em;overflow-wrap:break-word}
.confusion thead th{text-align:right}.confusion td{background:color-mix(in srgb,
var(--wrong) calc(var(--share)*.7),transparent)}.confusion td.right{background:
color-mix(in srgb,var(--right) calc(var(--share)*.5),transparent)}
a{color:inherit}.charts{display:grid;gap:16px;
grid-template-columns:repeat(auto-fill,minmax(min(340px,100%),1fr))}
figure{margin:0}figcaption{text-align:center}svg{width:100%;height:auto}
.overview svg{max-width:760px;min-width:370px}svg.key{width:18px;margin-right:6px}
.note{color:var(--soft);font-size:13px}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(215px,1fr));gap:14px}
.card{font-size:12.5px}.card img{height:100px;width:100px;
object-fit:contain;margin-right:4px}.card figcaption{text-align:left}
.receipt td{white-space:normal;word-break:break-all}
code,pre{font-size:12.5px}pre{overflow-x:auto}@media(max-width:600px){main{padding:12px}}
"""

STYLE = (
    f":root{{{_variables(LIGHT)}}}"
    f"@media(prefers-color-scheme:dark){{:root{{{_variables(DARK)}}}}}"
    + chart_style(Theme(*(f"var(--{name})" for name in Theme._fields)))
    + _PAGE
)
