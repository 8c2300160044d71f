// What a row of the list says of a latent.

const ALWAYS = ["density", "largest"]; // columns that are shown in any case, where there are samples
const OF_STRONGEST = 10; // examples whose tokens are counted for "strongest on"

/** The strongest example of a latent, cut around the token that it is about. */
function snippet({ examples, latents }, latent) {
  const [first] = examples.of(latent);
  return first === undefined ? [] : windowParts(examples.example(first, latent), latents.largest[latent]);
}

function topTokens({ examples }, latent, n) {
  return examples.topTokens(latent, OF_STRONGEST, n).flatMap((piece) => [token(piece), " "]);
}

function numberColumn({ key, title, values, format }) {
  return {
    title,
    key,
    kind: key === "largest" ? "n largest" : "n",
    cell: (latent) => format(values[latent]),
  };
}

/** A label behind its score, and whether that is above chance. */
function labelCell(label) {
  if (label === undefined) return [];
  const { text, score, sure } = label;
  const said = [score === null ? null : num(score, 2), sure === false ? "unsure" : null].filter(Boolean);
  const before = said.length === 0 ? [] : [el("small", {}, said.join(" ")), " "];
  const shown = labelText(text);
  return [...before, ...(sure === false ? [el("span", { class: "doubted" }, shown)] : shown)];
}

/** Columns in sight: title, class, key to sort by where they can, and what a cell holds. */
function listColumns({ data, names, extra }) {
  const found = [{ title: "latent", key: "number", kind: "n id", cell: String }];
  if (names.size > 0)
    found.push({ title: "label", kind: "text label", cell: (latent) => labelCell(names.get(latent)) });
  if (data.examples !== null) {
    found.push({ title: "strongest on", kind: "text", cell: (latent) => topTokens(data, latent, 3) });
    found.push({ title: "strongest example", kind: "text snippet", cell: (latent) => snippet(data, latent) });
  }
  const numbers = [...ALWAYS.map((key) => data.columns.get(key)), extra];
  return [...found, ...numbers.filter((column) => column !== null).map(numberColumn)];
}
