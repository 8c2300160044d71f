// Windows of text, with a latent's activation on every token.

const SHOWN_OF_A_GROUP = 50; // more are not drawn; the file rarely has as many

/** A token of a window: the stronger the latent there, the more of the colour, and the thicker the line. */
function tokenSpan(text, activation, largest, isPeak) {
  if (activation === 0 && !isPeak) return pieces(text);
  const node = el(
    "span",
    { class: isPeak ? "act peak" : "act", title: num(activation) },
    text === "" ? "∅" : pieces(text),
  );
  node.style.setProperty("--a", Math.min(1, Math.abs(activation) / largest).toFixed(3));
  if (activation < 0) node.classList.add("negative");
  return node;
}

/** In words, for those who hear the page: where it fires, and how strongly. */
function inWords({ texts, activations }) {
  const said = [];
  activations.forEach((value, i) => {
    if (value !== 0) said.push(`“${visible(texts[i]).trim() || "space"}” ${num(value)}`);
  });
  return said.join(", ");
}

function whereItStands({ document: number, context, position }) {
  const parts = [`context ${num(context)}`, `position ${num(position)}`];
  return number < 0 ? parts : [`document ${num(number)}`, ...parts];
}

/** A window in two parts: what is before the token that the example is about, and what begins with it. */
function windowParts({ texts, activations, peak }, largest) {
  const spans = texts.map((text, i) => tokenSpan(text, activations[i], largest, i === peak));
  return [
    el("span", { class: "before" }, el("span", {}, spans.slice(0, peak).flat())),
    el("span", { class: "after" }, spans.slice(peak).flat()),
  ];
}

function exampleRow(example, largest) {
  const { activations, peak } = example;
  const where = whereItStands(example);
  const text = el("span", { class: "window" }, windowParts(example, largest));
  const value = el("span", { class: "value", title: where.join(", ") }, num(activations[peak], 3));
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
