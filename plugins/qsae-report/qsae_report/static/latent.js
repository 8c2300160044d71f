// The page of one latent.

const onLatent = []; // what else is told of every latent that is shown: (latent, element for its actions)

function pairs(title, rows, note = null) {
  if (rows.length === 0) return null;
  return el(
    "section",
    { class: "side" },
    el("h4", {}, title, note),
    el("table", { class: "plain" }, el("tbody", {}, rows)),
  );
}

function facts(data, latent) {
  if (data.latents === null) return null;
  const [count, tokens] = [data.latents.count[latent], about.samples.tokens];
  const rows = [
    ["fires on", `${percent(count / tokens)} of tokens`],
    ["", `${num(count)} of ${num(tokens)}`],
  ];
  if (count > 0)
    rows.push(["mean", num(data.latents.mean[latent])], ["max", num(data.latents.largest[latent])]);
  return pairs(
    "Activation",
    rows.map(([name, text]) =>
      el("tr", {}, el("th", { scope: "row" }, name), el("td", { class: "n" }, text)),
    ),
  );
}

/** Raised (0) or lowered (1) tokens. */
function logitTokens(data, latent, which) {
  if (data.logits === null) return null;
  const n = data.logits.token.length / about.latents / 2;
  const from = (latent * 2 + which) * n;
  const rows = Array.from({ length: n }, (_, i) => {
    const [text, value] = [data.texts[data.logits.token[from + i]], data.logits.value[from + i]];
    return el("tr", {}, el("td", {}, token(text)), el("td", { class: "n" }, num(value, 3)));
  });
  return pairs(which === 0 ? "Raises" : "Lowers", rows, el("small", {}, " logits of next tokens"));
}

function latentRow(data, latent, number) {
  const name = data.list.sureName(latent);
  const tokens = data.examples === null ? [] : topTokens(data, latent, 2);
  return el(
    "tr",
    {},
    el("td", { class: "n" }, latentLink(latent)),
    el("td", { class: "text" }, name === null ? tokens : labelText(name)),
    el("td", { class: "n" }, number),
  );
}

function nearestLatents(data, latent) {
  if (data.nearest === null) return null;
  const each = data.nearest.nearest.length / about.latents;
  const at = Array.from({ length: each }, (_, i) => latent * each + i).filter(
    (i) => data.nearest.nearest[i] >= 0,
  );
  const rows = at.map((i) =>
    latentRow(data, data.nearest.nearest[i], num(data.nearest.nearest_cosine[i], 2)),
  );
  return pairs("Nearest atoms", rows, el("small", {}, " cosine"));
}

function coFiring(data, latent) {
  if (data.latents === null) return null;
  const { cofiring, cofiring_share: shares } = data.latents;
  const each = cofiring.length / about.latents;
  const at = Array.from({ length: each }, (_, i) => latent * each + i).filter((i) => cofiring[i] >= 0);
  return pairs(
    "Fires together with",
    at.map((i) => latentRow(data, cofiring[i], percent(shares[i]))),
    el("small", {}, " share of either’s tokens"),
  );
}

/** The most similar atom of another coder, and its strongest examples. */
function counterpart(other, latent) {
  const [number, cosine] = [other.match.which[latent], other.match.cosine[latent]];
  const same = number === latent ? ", the same number" : "";
  const parts = [
    el("h4", {}, `In ${other.name}`),
    el("p", {}, `Latent ${number}, cosine ${num(cosine, 2)}${same}.`),
  ];
  if (other.examples !== null) {
    if (other.differs !== null) parts.push(el("p", { class: "note" }, `Its examples: ${other.differs}.`));
    const found = other.examples.of(number).map((i) => other.examples.example(i, number));
    const largest = Math.max(...found.flatMap((one) => one.pieces.map((piece) => Math.abs(strongest(piece)))), 1e-30);
    parts.push(
      found.length === 0
        ? el("p", { class: "note" }, "It fires on none of its tokens.")
        : exampleList(found, largest),
    );
  }
  return el("section", {}, parts);
}

/** Every column's value for one latent, an evaluation after another. */
function values(data, latent) {
  const groups = new Map();
  for (const { key, title, group, values: all, format } of data.columns.all) {
    if (!key.includes("/")) continue;
    if (!groups.has(group)) groups.set(group, []);
    const link = el("a", { href: `#latents/${encodeURIComponent(key)}` }, title);
    groups
      .get(group)
      .push(el("tr", {}, el("th", { scope: "row" }, link), el("td", { class: "n" }, format(all[latent]))));
  }
  const tables = [...groups].map(([name, rows]) => pairs(name, rows));
  return tables.length === 0
    ? null
    : el("section", {}, el("h3", {}, "In evaluations"), el("div", { class: "sides" }, tables));
}

/** Rows of every table whose column `latent` is this one. */
function rowsAbout(data, latent) {
  const found = [];
  for (const [evaluation, tables] of Object.entries(data.tables)) {
    for (const [name, { columns, rows }] of Object.entries(tables)) {
      const at = columns.indexOf("latent");
      const own = at < 0 ? [] : rows.filter((row) => row[at] === latent);
      if (own.length === 0) continue;
      const title = `${evaluation.replace("#", "")}: ${name.replaceAll("-", " ")}`;
      found.push(el("h4", {}, title), new SortedTable(title, { columns, rows: own, total: own.length }).node);
    }
  }
  return found.length === 0 ? null : el("section", {}, el("h3", {}, "In tables"), found);
}

function labelsOf(latent) {
  const own = about.labels.filter(([number]) => number === latent);
  return own.map(([, text, source, score, sure, chance, error]) => {
    const parts = [source, score === null ? null : `score ${num(score, 2)}`];
    if (sure !== null) parts.push(`by chance ${num(chance, 2)} ± ${num(error, 2)}`);
    const from = el("small", {}, ` (${parts.filter(Boolean).join(", ")})`);
    const unsure = sure === false ? el("strong", { class: "unsure" }, "unsure: ") : null;
    return el("p", { class: sure === false ? "label doubted" : "label" }, unsure, labelText(text), from);
  });
}

function steps(data, latent) {
  const { place: at, before, after } = data.list.around(latent);
  const link = (number, text, key) => {
    if (number === null) return el("span", { class: "step" }, text);
    return el(
      "a",
      { class: "step", href: `#latent/${number}`, id: `step-${key}`, "aria-keyshortcuts": key },
      text,
    );
  };
  const n = num(data.list.order.length);
  const where =
    at < 0 ? "not in the list as it is searched now" : `${num(at + 1)} of ${n} by ${data.list.by.title}`;
  return [
    link(before, "← previous", "ArrowLeft"),
    link(after, "next →", "ArrowRight"),
    el("span", { class: "where" }, where),
  ];
}

async function showLatent(rest, moved) {
  const data = await latentData();
  const latent = Number(rest);
  const view = document.getElementById("view-latent");
  const heading = document.getElementById("latent-title");
  const body = document.getElementById("latent-body");
  if (!/^\d+$/.test(rest) || !isLatent(latent)) {
    heading.textContent = "No such latent";
    document.getElementById("aligned").parentElement.hidden = true;
    for (const id of ["latent-steps", "latent-labels", "latent-actions"]) clear(document.getElementById(id));
    clear(body, el("p", {}, `Latents are 0 to ${num(about.latents - 1)}.`));
  } else {
    heading.textContent = `Latent ${latent}`;
    document.getElementById("aligned").parentElement.hidden = false;
    clear(document.getElementById("latent-steps"), steps(data, latent));
    clear(document.getElementById("latent-labels"), labelsOf(latent));
    const actions = clear(document.getElementById("latent-actions"));
    for (const tell of onLatent) tell(latent, actions);
    clear(body, latentBody(data, latent));
  }
  if (moved && !view.contains(document.activeElement)) focusHeading(view);
}

function latentBody(data, latent) {
  const chart = data.latents === null ? null : activationHistogram(data, latent);
  const sides = [
    facts(data, latent),
    chart,
    logitTokens(data, latent, 0),
    logitTokens(data, latent, 1),
    nearestLatents(data, latent),
    coFiring(data, latent),
  ];
  const examples =
    data.examples === null
      ? [el("p", { class: "note" }, "This report was made without examples.")]
      : exampleGroups(data, latent);
  const main = [...examples, ...data.others.map((other) => counterpart(other, latent))];
  return [
    el(
      "div",
      { class: "latent" },
      el("aside", { "aria-label": "numbers of the latent" }, sides),
      el("div", { class: "windows" }, main),
    ),
    values(data, latent),
    rowsAbout(data, latent),
  ];
}
