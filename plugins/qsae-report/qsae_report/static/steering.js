// The lower half of the view `try`: edits of latents, and the text gone on with, with them and without.

// operation -> the value and the unit that it begins with; null: it takes none
const USUAL = {
  set: [2, "max"],
  add: [0.5, "norm"],
  scale: [2, null],
  ablate: [null, null],
  cap: [0.5, "max"],
  floor: [0.5, "max"],
};

/** What two texts begin with alike, and what is behind that in each. */
function parted(one, other) {
  const [a, b] = [[...one], [...other]];
  let n = 0;
  while (n < a.length && a[n] === b[n]) n += 1;
  return [a.slice(0, n), a.slice(n), b.slice(n)].map((characters) => characters.join(""));
}

/** Edits, and what they do to a text. */
class Steering {
  constructor(view) {
    this.view = view;
    this.edits = part(view, "edits");
    part(view, "add").addEventListener("click", () => this.add(null));
    part(view, "steer").addEventListener("submit", (event) => this.run(event));
  }

  field(row, name) {
    return row.querySelector(`[data-edit="${name}"]`);
  }

  /** A row for an edit of a latent, or the one that there is; null: of one that is to be named. */
  async add(latent) {
    this.data = await latentData();
    const same = (row) => this.field(row, "latent").value === String(latent);
    const row = [...this.edits.children].find(same) ?? this.append(latent ?? "");
    const first = this.field(row, latent === null ? "latent" : "value");
    first.focus();
    first.select();
    row.scrollIntoView({ block: "nearest" });
  }

  append(latent) {
    const row = part(this.view, "edit").content.firstElementChild.cloneNode(true);
    const op = this.field(row, "op");
    Object.assign(this.field(row, "latent"), { value: latent, max: about.latents - 1 });
    this.field(row, "latent").addEventListener("input", () => this.describe(row));
    op.addEventListener("change", () => this.begin(row, ...USUAL[op.value]));
    this.field(row, "remove").addEventListener("click", () => {
      row.remove();
      part(this.view, "no-edits").hidden = this.edits.children.length > 0;
      part(this.view, "add").focus();
    });
    this.edits.append(row);
    this.begin(row, ...USUAL[op.value]);
    this.describe(row);
    part(this.view, "no-edits").hidden = true;
    return row;
  }

  begin(row, value, unit) {
    Object.assign(this.field(row, "value"), { value: value ?? "", disabled: value === null });
    this.field(row, "unit").disabled = unit === null;
    if (unit !== null) this.field(row, "unit").value = unit;
  }

  describe(row) {
    const latent = this.field(row, "latent").value;
    this.field(row, "remove").setAttribute("aria-label", `Remove the edit of latent ${latent}`);
    clear(this.field(row, "about"), latent === "" ? [] : this.known(Number(latent)));
  }

  known(latent) {
    if (isLatent(latent)) return knownBy(this.data, latent);
    return [`There is no latent ${latent}: they are 0 to ${num(about.latents - 1)}.`];
  }

  edit(row) {
    const names = ["latent", "op", "value", "unit", "positions", "active"];
    const [latent, op, value, unit, positions, active] = names.map((name) => this.field(row, name));
    return {
      latent: Number(latent.value),
      op: op.value,
      value: value.disabled ? null : Number(value.value),
      unit: unit.disabled ? null : unit.value,
      positions: positions.value,
      active: active.checked,
    };
  }

  run(event) {
    event.preventDefault();
    part(this.view, "result").hidden = true;
    const edits = [...this.edits.children].map((row) => this.edit(row));
    const body = { prompt: document.getElementById("try-text").value, edits };
    for (const name of ["max_new_tokens", "temperature", "seed"]) body[name] = Number(part(this.view, name).value);
    const first = !this.measured && edits.some(({ unit }) => unit !== null && unit !== "raw");
    const doing = "Going on with the text, steered and unsteered …";
    asked(event.target, first ? `${doing} Units are measured first, once.` : doing, async () => {
      const found = await ask("api/steer", body);
      this.measured ||= first;
      this.show(found, edits);
      return `Both texts are there; they ${found.steered === found.unsteered ? "are the same" : "differ"}.`;
    });
  }

  show(found, edits) {
    const [same, ...rests] = parted(found.steered, found.unsteered);
    ["steered", "unsteered"].forEach((name, i) => {
      const rest = rests[i] === "" ? null : el("mark", {}, visible(rests[i]));
      clear(part(this.view, name), el("span", { class: "try-prompt" }, visible(found.prompt)), visible(same), rest);
    });
    clear(part(this.view, "facts"), Steering.facts(found).map((line) => el("li", {}, line)));
    const named = [...new Set(edits.map(({ latent }) => String(latent)))];
    const latents = named.filter((latent) => found.steps.some(({ activations }) => latent in activations));
    const select = part(this.view, "trace-latent");
    const choices = latents.flatMap((latent) => ["after the edit", "before it"].map((when) => el("option", {}, `${latent}, ${when}`)));
    clear(select, choices);
    select.onchange = () => this.trace(found.steps, latents[select.selectedIndex >> 1], 1 - (select.selectedIndex % 2));
    part(this.view, "traced").hidden = latents.length === 0;
    if (latents.length > 0) select.onchange();
    this.table(found.steps, latents);
    part(this.view, "result").hidden = false;
  }

  static facts({ shift, kl, notes }) {
    const found = [];
    if (shift.mean !== null) {
      const sizes = `${num(shift.mean, 3)} on average, ${num(shift.largest, 3)} at most`;
      found.push(`Effective shift ‖h′ − h‖ / ‖h‖: ${sizes}; ${num(shift.vectors)} vectors were edited.`);
    }
    if (kl !== null) found.push(`KL(steered ‖ unsteered) of the predictions: ${num(kl, 3)} nats on average.`);
    return [...found, ...notes.map((note) => `Note: ${note}.`)];
  }

  /** The steered text, coloured by a latent's activation: before (0) or after (1) its edits. */
  trace(steps, latent, when) {
    const top = Math.max(0, ...steps.map(({ activations }) => Math.abs(activations[latent]?.[when] ?? 0)));
    const tokens = steps.map(({ text, bytes, prompt, activations }) => {
      const pair = activations[latent];
      const title = pair ? `${num(pair[0], 3)} → ${num(pair[1], 3)}` : "not edited";
      const shown = el("span", { class: prompt ? "try-token try-prompt" : "try-token", title }, shownPiece({ text, bytes }));
      colour(shown, pair ? pair[when] : 0, top);
      return shown;
    });
    clear(part(this.view, "trace"), tokens);
  }

  table(steps, latents) {
    const heads = ["token", "of", "KL", "shift", ...latents.map((latent) => `latent ${latent}`)];
    const numbers = (step) => [
      num(step.kl, 3),
      num(step.shift, 3),
      ...latents.map((latent) => step.activations[latent]?.map((value) => num(value, 3)).join(" → ") ?? UNDEFINED),
    ];
    const row = (step) =>
      el(
        "tr",
        {},
        el("td", { class: "t" }, token(shownText(step))),
        el("td", {}, step.prompt ? "the text" : "what follows"),
        numbers(step).map((text) => el("td", { class: "n" }, text)),
      );
    const head = heads.map((text, i) => el("th", { scope: "col", class: i > 1 ? "n" : null }, text));
    clear(part(this.view, "steps"), el("thead", {}, el("tr", {}, head)), el("tbody", {}, steps.map(row)));
  }
}

startTrying();
