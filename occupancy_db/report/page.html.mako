<!doctype html>
<!-- occupancy-db report -->
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex, nofollow, noarchive">
<meta name="referrer" content="no-referrer">
<meta name="color-scheme" content="light dark">
<title>${page.database}: report of ${home.local(home.now)}</title>
<style>${Markup(style)}</style>
</head>
<body>
<a class="skip" href="#content">Skip to the content</a>
<header>
<h1>Occupancy report</h1>
<p><bdi>${page.database}</bdi>${f" on {page.host}" if page.host else ""}, ${home.local(home.now)} (${home.zone.key}), \
occupancy-db ${page.release}</p>
<p class="private"><strong>Private.</strong> This page shows when nobody is at home.</p>
</header>
<nav aria-label="Sections">
<ul>
% for section in page.sections:
<li><a href="#${section.id}">${section.title}</a></li>
% endfor
</ul>
</nav>
<main id="content" tabindex="-1">
<dl class="tiles">
% for tile in page.tiles:
<div class="tile ${tile.style}"><dt>${tile.title}</dt><dd><span class="value">${tile.value}</span> <span class="note">${tile.note}</span></dd></div>
% endfor
</dl>
% for section in page.sections:
<section id="${section.id}" aria-labelledby="${section.id}-title">
<h2 id="${section.id}-title">${section.title}</h2>
% for number, part in enumerate(section.parts):
% if part.kind == "text":
<p class="${part.style}">${part.text}</p>
% elif part.kind == "chart":
<figure>
<div class="chart" role="img" aria-label="${part.title}">${part.svg}</div>
<figcaption>${part.caption}</figcaption>
</figure>
% elif part.hidden:
<details>
<summary>${part.caption}</summary>
${table(part, section.id, number)}
</details>
% else:
${table(part, section.id, number)}
% endif
% endfor
</section>
% endfor
</main>
<footer><p>The page makes no request to anywhere. How to read it: docs/report.md.</p></footer>
</body>
</html>
<%def name="table(part, section, number)"><%
    caption = f"{section}-{number}"
%><div class="scroll" role="region" tabindex="0" aria-labelledby="${caption}">
<table class="${part.style}">
<caption id="${caption}">${part.caption}</caption>
<thead><tr>\
% for column in part.columns:
<th scope="col" class="${column.style}">${column.title}</th>\
% endfor
</tr></thead>
<tbody>
% for row in part.rows:
<tr>\
% for place, cell in enumerate(row):
<%
    text, style = (cell, part.columns[place].style) if isinstance(cell, str) else (cell.text, cell.style)
%>\
% if place == 0:
<th scope="row" class="${style}">${text}</th>\
% else:
<td class="${style}">${text}</td>\
% endif
% endfor
</tr>
% endfor
</tbody>
</table>
</div></%def>
