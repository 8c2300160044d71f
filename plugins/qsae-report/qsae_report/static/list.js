// The list of all latents: rows of one height, of which those in sight alone exist.

const ROW = 30; // height of a row in pixels; the style sheet has it too
const SPARE = 10; // rows that are drawn above and below those in sight

class LatentList {
  constructor(data) {
    this.data = data;
    this.search = new Search(data);
    this.current = 0; // row that the keyboard is at
    this.scroller = document.getElementById("list");
    this.rows = document.getElementById("list-rows");
    this.extra = null;
    this.drawn = new Map(); // row -> its element
    this.names = new Map(); // latent -> the label that stands for all that it has
    for (const [latent, text, , score, sure] of about.labels) this.name(latent, { text, score, sure });
    this.choose();
    this.scroller.addEventListener("scroll", () => this.draw(), { passive: true });
    this.scroller.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(this.scroller);
    this.begin();
  }

  /** The first label stands for all, but one that is not better than chance only where there is no other. */
  name(latent, label) {
    const before = this.names.get(latent);
    if (before === undefined || (before.sure === false && label.sure !== false)) this.names.set(latent, label);
  }

  /** What a latent is called elsewhere than in the list; null where no label is better than chance. */
  sureName(latent) {
    const label = this.names.get(latent);
    return label === undefined || label.sure === false ? null : label.text;
  }

  /** By density; where there are no samples, by what evaluations say of it, or by whatever they say. */
  begin() {
    const { columns } = this.data;
    const keys = columns.all.map(({ key }) => key);
    const others = ["sparsity/density", ...keys.filter((key) => key.includes("/")), ...keys];
    if (columns.get("density") !== null) this.sort("density", true);
    else if (columns.all.length > 0) this.show(others.find((key) => columns.get(key) !== null));
    else this.sort("number", false);
  }

  /** Fill the choice of a further column, and listen to the search. */
  choose() {
    const select = document.getElementById("list-column");
    for (const { key, group, title } of this.data.columns.all) {
      if (!ALWAYS.includes(key)) select.append(el("option", { value: key }, `${group}: ${title}`));
    }
    select.addEventListener("change", () => this.show(select.value));
    const input = document.getElementById("list-search");
    let waiting = 0;
    input.addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => this.filter(input.value), 120);
    });
    input.addEventListener("keydown", (event) => {
      if (event.key !== "ArrowDown") return;
      event.preventDefault();
      this.focus();
    });
    document.getElementById("list-filter").addEventListener("submit", (event) => {
      event.preventDefault();
      clearTimeout(waiting);
      this.filter(input.value);
    });
  }

  /** Show a further column and sort by it; none for an empty key. */
  show(key) {
    this.extra = key === "" ? null : this.data.columns.get(key);
    document.getElementById("list-column").value = this.extra === null ? "" : key;
    if (this.extra !== null) this.sort(key, true);
    else if (this.data.columns.get("density") !== null) this.sort("density", true);
    else this.sort("number", false);
  }

  filter(query) {
    this.kept = this.search.find(query);
    this.arrange();
  }

  /** Sort by a column; by the one that it is sorted by, the other way round. */
  sort(key, descending) {
    const column = this.data.columns.get(key);
    this.by = column === null ? { key: "number", title: "number", values: null } : column;
    if (descending === undefined)
      descending = this.sorted === this.by.key ? !this.descending : column !== null;
    [this.sorted, this.descending] = [this.by.key, descending];
    this.arrange();
  }

  arrange() {
    const { values } = this.by;
    const sign = this.descending ? -1 : 1;
    const all = Uint32Array.from({ length: about.latents }, (_, i) => i);
    const kept = this.kept ? all.filter((latent) => this.kept[latent]) : all;
    const defined = values === null ? kept : kept.filter((latent) => !Number.isNaN(values[latent]));
    defined.sort((a, b) => (values === null ? sign * (a - b) : sign * (values[a] - values[b]) || a - b));
    this.order = kept;
    if (defined !== kept) {
      const undefinedOnes = kept.filter((latent) => Number.isNaN(values[latent]));
      this.order = new Uint32Array(kept.length);
      this.order.set(defined);
      this.order.set(undefinedOnes, defined.length);
    }
    this.current = 0;
    this.scroller.scrollTop = 0;
    this.drawn.clear();
    this.rows.replaceChildren();
    this.describe();
    this.draw();
  }

  describe() {
    const n = this.order.length;
    const count = this.kept ? `${num(n)} of ${num(about.latents)} latents` : `${num(n)} latents`;
    const way = this.descending ? "largest first" : "smallest first";
    document.getElementById("list-count").textContent = `${count}, by ${this.by.title}, ${way}`;
    const grid = document.getElementById("list-grid");
    grid.setAttribute("aria-rowcount", n + 1);
    document.getElementById("list-empty").hidden = n > 0;
    clear(
      document.getElementById("list-head"),
      listColumns(this).map((column) => this.heading(column)),
    );
    grid.classList.toggle("with-labels", this.names.size > 0);
    grid.classList.toggle("with-extra", this.extra !== null);
    grid.classList.toggle("without-examples", this.data.examples === null);
  }

  heading({ title, key, kind }) {
    if (key === undefined) return el("span", { role: "columnheader", class: kind }, title);
    const sorted = this.sorted === key;
    const way = !sorted ? "none" : this.descending ? "descending" : "ascending";
    const press = () => {
      this.sort(key);
      document.querySelector(`#list-head [data-key="${CSS.escape(key)}"]`).focus();
    };
    const button = el("button", { type: "button", "data-key": key, onclick: press }, title);
    return el("span", { role: "columnheader", class: kind, "aria-sort": way }, button);
  }

  /** Rows in sight, some around them, and the one that the keyboard is at. */
  draw() {
    const [top, height] = [this.scroller.scrollTop, this.scroller.clientHeight];
    this.rows.style.height = `${this.order.length * ROW}px`;
    if (height === 0) return;
    const from = Math.max(0, Math.floor(top / ROW) - SPARE);
    const to = Math.min(this.order.length, Math.ceil((top + height) / ROW) + SPARE);
    const wanted = new Set([this.current]);
    for (let row = from; row < to; row++) wanted.add(row);
    for (const [row, node] of this.drawn) {
      if (wanted.has(row)) continue;
      node.remove();
      this.drawn.delete(row);
    }
    const columns = listColumns(this);
    for (const row of wanted) {
      if (this.drawn.has(row) || row >= this.order.length) continue;
      const node = this.row(row, columns);
      this.drawn.set(row, node);
      this.rows.append(node);
    }
  }

  row(row, columns) {
    const latent = this.order[row];
    const cells = columns.map(({ kind, cell }) =>
      el("span", { role: "gridcell", class: kind }, cell(latent)),
    );
    const attributes = { role: "row", class: "row", "aria-rowindex": row + 2, "data-row": row };
    const open = () => {
      this.at(row);
      go(`latent/${latent}`);
    };
    const node = el(
      "div",
      { ...attributes, tabindex: row === this.current ? "0" : "-1", onclick: open },
      cells,
    );
    node.style.top = `${row * ROW}px`;
    node.addEventListener("focus", () => this.at(row));
    return node;
  }

  /** Move the keyboard's row. */
  at(row) {
    const before = this.drawn.get(this.current);
    if (before) before.tabIndex = -1;
    this.current = row;
    const after = this.drawn.get(row);
    if (after) after.tabIndex = 0;
  }

  focus() {
    this.reveal(this.current);
    const node = this.drawn.get(this.current);
    if (node) node.focus({ preventScroll: true });
  }

  reveal(row) {
    const [top, height] = [this.scroller.scrollTop, this.scroller.clientHeight - ROW]; // under the headings
    if (row * ROW < top) this.scroller.scrollTop = row * ROW;
    else if ((row + 1) * ROW > top + height) this.scroller.scrollTop = (row + 1) * ROW - height;
    this.draw();
  }

  key(event) {
    const last = this.order.length - 1;
    const page = Math.max(1, Math.floor(this.scroller.clientHeight / ROW) - 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -last, End: last };
    if (!event.target.closest("[data-row]")) return; // a heading
    if (event.key === "Enter" && last >= 0) go(`latent/${this.order[this.current]}`);
    else if (event.key in steps && last >= 0) {
      this.at(Math.min(last, Math.max(0, this.current + steps[event.key])));
      this.focus();
    } else return;
    event.preventDefault();
  }

  /** Where a latent stands in the list as it is now, and those before and after it; by number if it does not. */
  around(latent) {
    const place = this.order.indexOf(latent);
    if (place < 0)
      return {
        place,
        before: latent > 0 ? latent - 1 : null,
        after: latent + 1 < about.latents ? latent + 1 : null,
      };
    const at = (i) => (i >= 0 && i < this.order.length ? this.order[i] : null);
    return { place, before: at(place - 1), after: at(place + 1) };
  }
}
