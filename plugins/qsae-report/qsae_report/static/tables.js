// Tables of evaluations: sorted by any column, drawn a part at a time.

const DRAWN = 200; // rows that are drawn at once

/** Whether the numbers of a column are latents. */
function namesLatents(column) {
  return column === "latent" || column.endsWith("_latent");
}

function isLatent(cell) {
  return Number.isInteger(cell) && cell >= 0 && cell < about.latents;
}

function latentLink(latent, text = String(latent)) {
  return el("a", { href: `#latent/${latent}` }, text);
}

function cellOf(column, cell) {
  if (cell === null) return el("td", { class: "n" }, UNDEFINED);
  if (namesLatents(column) && isLatent(cell)) return el("td", { class: "n" }, latentLink(cell));
  if (typeof cell === "number") return el("td", { class: "n" }, num(cell));
  return el("td", { class: "t" }, pieces(cell));
}

/** Rows in the order of a column: numbers before text, what is not defined last either way. */
function ordered(rows, column, descending) {
  const sign = descending ? -1 : 1;
  const rank = (cell) => (cell === null ? 2 : typeof cell === "number" ? 0 : 1);
  return rows.slice().sort((a, b) => {
    const [x, y] = [a[column], b[column]];
    const kinds = rank(x) - rank(y);
    if (kinds !== 0) return kinds;
    if (x === y) return 0;
    return sign * (typeof x === "number" ? x - y : x < y ? -1 : 1);
  });
}

/** A table whose headings sort it; null leaves its order as it is. */
class SortedTable {
  constructor(name, { columns, rows, total }) {
    Object.assign(this, {
      name,
      columns,
      rows,
      total,
      shown: rows,
      drawn: DRAWN,
      by: null,
      descending: false,
    });
    this.numeric = columns.map((_, i) => rows.every((row) => row[i] === null || typeof row[i] === "number"));
    this.headings = columns.map((column, i) => this.heading(column, i));
    this.body = el("tbody", {});
    this.note = el("p", { class: "note" });
    const table = el("table", {}, el("thead", {}, el("tr", {}, this.headings)), this.body);
    const region = el("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": name }, table);
    this.node = el("div", { class: "table" }, region, this.note);
    this.draw();
  }

  heading(column, i) {
    const button = el("button", { type: "button", onclick: () => this.sort(i) }, column.replaceAll("_", " "));
    return el("th", { scope: "col", class: this.numeric[i] ? "n" : null, "aria-sort": "none" }, button);
  }

  sort(column) {
    this.descending = this.by === column ? !this.descending : this.numeric[column];
    this.by = column;
    this.shown = ordered(this.rows, column, this.descending);
    this.drawn = DRAWN;
    this.headings.forEach((heading, i) => {
      heading.setAttribute("aria-sort", i !== column ? "none" : this.descending ? "descending" : "ascending");
    });
    this.draw();
  }

  draw() {
    const rows = this.shown.slice(0, this.drawn);
    clear(
      this.body,
      rows.map((row) =>
        el(
          "tr",
          {},
          row.map((cell, i) => cellOf(this.columns[i], cell)),
        ),
      ),
    );
    const parts = [];
    if (this.rows.length === 0) parts.push("No rows.");
    if (rows.length < this.rows.length) {
      parts.push(`${num(rows.length)} of ${num(this.rows.length)} rows. `);
      const more = () => {
        this.drawn += DRAWN;
        this.draw();
      };
      parts.push(el("button", { type: "button", onclick: more }, `${DRAWN} more`));
    }
    if (this.total > this.rows.length) {
      parts.push(
        ` The stored table has ${num(this.total)} rows; the page holds the first ${num(this.rows.length)}.`,
      );
    }
    clear(this.note, parts);
    this.note.hidden = parts.length === 0;
  }
}

/** Fill every place of a view that asks for a table or for columns. */
async function fillTables(view) {
  const places = [...view.querySelectorAll("[data-table]:empty")];
  if (places.length === 0) return;
  const tables = await block("tables");
  for (const place of places) {
    const table = tables[place.dataset.evaluation][place.dataset.table];
    place.append(new SortedTable(place.dataset.table, table).node);
  }
}

async function fillColumns(view) {
  const places = [...view.querySelectorAll("[data-columns]:empty")];
  if (places.length === 0) return;
  const { columns } = await latentData();
  for (const place of places) {
    const name = place.dataset.columns;
    const own = columns.all.filter((column) => column.group === name && column.key.startsWith(`${name}/`));
    place.append(
      el(
        "div",
        { class: "scroll", role: "region", tabindex: "0", "aria-label": `columns of ${name}` },
        columnTable(own),
      ),
    );
  }
}
