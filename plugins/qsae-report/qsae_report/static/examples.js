// Windows of text, with a latent's activation on every token.

const SHOWN_OF_A_GROUP = 50; // more are not drawn; the file rarely has as many

/** The activation of largest magnitude on the tokens of a piece. */
function strongest({ activations }) {
  return activations.reduce((most, value) => (Math.abs(value) > Math.abs(most) ? value : most), 0);
}

/** What is said of a piece when it is pointed at: of a character of several tokens, each one's activation. */
function pieceTitle({ activations }) {
  const said = Array.from(activations, (value) => num(value)).join(", ");
  return activations.length === 1 ? said : `a character of ${activations.length} tokens: ${said}`;
}

/** A piece of a window: the stronger the latent there, the more of the colour, and the thicker the line. */
function pieceSpan(piece, largest, isPeak) {
  const activation = strongest(piece);
  const bytes = piece.text instanceof ByteText;
  const shown = piece.text === "" ? "∅" : bytes ? String(piece.text) : pieces(piece.text);
  if (activation === 0 && !isPeak) return bytes ? el("span", { class: "bytes" }, shown) : pieces(piece.text);
  const node = el("span", { class: isPeak ? "act peak" : "act", title: pieceTitle(piece) }, shown);
  node.classList.toggle("bytes", bytes);
  node.style.setProperty("--a", Math.min(1, Math.abs(activation) / largest).toFixed(3));
  if (activation < 0) node.classList.add("negative");
  return node;
}

/** In words, for those who hear the page: where it fires, and how strongly. */
function inWords({ pieces: all }) {
  return all
    .filter((piece) => strongest(piece) !== 0)
    .map((piece) => `“${visible(piece.text).trim() || "space"}” ${num(strongest(piece))}`)
    .join(", ");
}

function whereItStands({ document: number, context, position }) {
  const parts = [`context ${num(context)}`, `position ${num(position)}`];
  return number < 0 ? parts : [`document ${num(number)}`, ...parts];
}

/** A window in two parts: what is before the piece that the example is about, and what begins with it. */
function windowParts({ pieces: all, peak }, largest) {
  const spans = all.map((piece, i) => pieceSpan(piece, largest, i === peak));
  return [
    el("span", { class: "before" }, el("span", {}, spans.slice(0, peak).flat())),
    el("span", { class: "after" }, spans.slice(peak).flat()),
  ];
}

function exampleRow(example, largest) {
  const where = whereItStands(example);
  const text = el("span", { class: "window" }, windowParts(example, largest));
  const value = el("span", { class: "value", title: where.join(", ") }, num(example.value, 3));
  const heard = el("span", { class: "heard" }, `; fires at ${inWords(example)}; ${where.join(", ")}`);
  return el("li", {}, value, text, heard);
}

function exampleList(found, largest) {
  return el(
    "ol",
    { class: "examples" },
    found.slice(0, SHOWN_OF_A_GROUP).map((one) => exampleRow(one, largest)),
  );
}

/** All examples of a latent: the strongest, then those of each part by rank. */
function exampleGroups(data, latent) {
  const found = data.examples.of(latent).map((i) => data.examples.example(i, latent));
  const largest = data.latents.largest[latent] || 1;
  if (found.length === 0)
    return [el("p", { class: "note" }, "It fired on none of the tokens that were read.")];
  const groups = about.samples.options.groups;
  const floors = data.latents.group_floor;
  const parts = [];
  for (let group = 0; group <= groups; group++) {
    const own = found.filter((example) => example.group === group);
    if (own.length === 0) continue;
    const floor = group === 0 ? NaN : floors[latent * groups + group - 1];
    parts.push(
      el("h4", {}, groupTitle(group, groups, own.length), groupNote(floor)),
      exampleList(own, largest),
    );
  }
  return parts;
}

function groupTitle(group, groups, n) {
  if (group === 0) return `Strongest ${n === 1 ? "example" : n}`;
  const share = 100 / groups;
  const rounded = (value) => Math.round(10 * value) / 10;
  return `Rank ${rounded((group - 1) * share)}–${rounded(group * share)}% of its firings`;
}

function groupNote(floor) {
  return Number.isNaN(floor) ? null : el("small", {}, ` down to ${num(floor, 3)}`);
}
