// Columns of one number a latent: what the list sorts by, and their summaries.

/** Every column: `key`, `title`, `group`, and `values` (NaN where not defined). */
class Columns {
  constructor({ latents, columns, nearest }, others) {
    this.all = [];
    if (latents !== null) this.addFirings(latents);
    if (nearest !== null) this.addCosines(nearest, others);
    const scores = labelScores();
    if (scores.some((score) => !Number.isNaN(score))) this.add("label-score", "score", "labels", scores);
    about.columns.forEach(([evaluation, name], i) => {
      const values = columns.values.subarray(i * about.latents, (i + 1) * about.latents);
      this.add(`${evaluation}/${name}`, name, evaluation, values);
    });
    this.byKey = new Map(this.all.map((column) => [column.key, column]));
  }

  addFirings({ count, largest, mean }) {
    const { tokens } = about.samples;
    const density = count.map((n) => n / tokens);
    this.add("density", "density", "firings", density, percent);
    this.add("largest", "max", "firings", largest);
    this.add("mean", "mean", "firings", mean);
  }

  addCosines({ nearest, nearest_cosine: cosines }, others) {
    const each = nearest.length / about.latents;
    const first = Float32Array.from({ length: about.latents }, (_, latent) => {
      return nearest[latent * each] < 0 ? NaN : cosines[latent * each];
    });
    this.add("nearest-cosine", "nearest cosine", "atoms", first);
    others.forEach(({ name, match }, i) => {
      this.add(`other-${i}-cosine`, `cosine in ${name}`, "atoms", match.cosine);
    });
  }

  add(key, title, group, values, format = num) {
    this.all.push({ key, title, group, values, format });
  }

  get(key) {
    return this.byKey.get(key) || null;
  }
}

/** The best score of each latent's labels. */
function labelScores() {
  const scores = new Float64Array(about.latents).fill(NaN);
  for (const [latent, , , score] of about.labels) {
    if (score !== null && !(scores[latent] > score)) scores[latent] = score;
  }
  return scores;
}

/** Of the values that are defined: how many, least, median, mean, largest, and counts in `bins` equal bins. */
function summary(values, bins = 32) {
  const defined = Float64Array.from(values)
    .filter((value) => Number.isFinite(value))
    .sort();
  const n = defined.length;
  if (n === 0) return { n, counts: [] };
  const [low, high] = [defined[0], defined[n - 1]];
  const counts = new Array(bins).fill(0);
  let sum = 0;
  for (const value of defined) {
    sum += value;
    counts[high > low ? Math.min(bins - 1, Math.floor(((value - low) / (high - low)) * bins)) : 0]++;
  }
  const median = (defined[(n - 1) >> 1] + defined[n >> 1]) / 2;
  return { n, low, median, mean: sum / n, high, counts };
}

/** A small picture of counts, described in words. */
function spark(counts, label, width = 160, height = 20) {
  const most = Math.max(1, ...counts);
  const step = width / Math.max(1, counts.length);
  const bars = counts.map((count, i) => {
    const tall = count === 0 ? 0 : Math.max(1, (count / most) * (height - 1));
    return svg("rect", { x: i * step, y: height - tall, width: Math.max(0.5, step - 1), height: tall });
  });
  return svg(
    "svg",
    { class: "spark", viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label },
    bars.filter((bar) => bar.getAttribute("height") !== "0"),
  );
}

/** A table of an evaluation's columns; each name leads to the list, sorted by it. */
function columnTable(columns) {
  const rows = columns.map(({ key, title, values }) => {
    const s = summary(values);
    const words = `${title}: ${s.n} defined, from ${num(s.low)} to ${num(s.high)}, median ${num(s.median)}`;
    const numbers =
      s.n === 0
        ? ["low", "median", "mean", "high"].map(() => UNDEFINED)
        : [s.low, s.median, s.mean, s.high].map((v) => num(v));
    return el(
      "tr",
      {},
      el("th", { scope: "row" }, el("a", { href: `#latents/${encodeURIComponent(key)}` }, title)),
      el("td", { class: "n" }, num(s.n)),
      numbers.map((text) => el("td", { class: "n" }, text)),
      el("td", {}, s.n === 0 ? UNDEFINED : spark(s.counts, words)),
    );
  });
  const headings = [
    "column",
    "latents",
    "least",
    "median",
    "mean",
    "largest",
    "distribution, least to largest",
  ];
  const head = headings.map((text, i) =>
    el("th", { scope: "col", class: i > 0 && i < 6 ? "n" : null }, text),
  );
  return el("table", {}, el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows));
}
