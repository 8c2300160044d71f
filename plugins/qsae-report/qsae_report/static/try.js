// The view `try` of a served report: a text, its tokens, and the latents at each. Steering is in steering.js;
// what the server answers is in serve/asked.py. Reading about a latent, `#try/123` leads here.

/** The part of a view with a name. */
function part(view, name) {
  return view.querySelector(`[data-try="${name}"]`);
}

/** What the server answers; else an Error with what is wrong, where, what is allowed and what to do next. */
async function ask(path, body) {
  const request = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(path, request).catch(() => {
    const next = "start qsae report --serve again";
    throw Object.assign(new Error("the server does not answer"), { next });
  });
  const found = await response.json();
  if (!response.ok) throw Object.assign(new Error(found.what), found);
  return found;
}

/** What a form asks: one question at a time, whose errors are shown, and whose end is said. */
async function asked(form, doing, question) {
  if (form.getAttribute("aria-busy") === "true") return;
  const [status, error] = [part(form, "status"), part(form, "error")];
  form.setAttribute("aria-busy", "true");
  clear(error);
  status.textContent = doing;
  try {
    status.textContent = await question();
  } catch (fault) {
    status.textContent = "";
    clear(
      error,
      el("p", {}, fault.where ? `${fault.where}: ${fault.message}` : fault.message),
      fault.allowed ? el("p", {}, `Allowed: ${fault.allowed}`) : null,
      fault.next ? el("p", {}, `Next: ${fault.next}`) : null,
    );
  } finally {
    form.removeAttribute("aria-busy");
  }
}

/** How strong something is: a share, in CSS. */
function strength(value, top) {
  return `--a:${top ? Math.abs(value) / top : 0}`;
}

/** Colour a token by an activation. */
function colour(element, value, top) {
  element.classList.toggle("act", value !== 0);
  element.classList.toggle("negative", value < 0);
  element.setAttribute("style", strength(value, top));
}

/** What the server says of a token: its text; of one that ends no character, its bytes. */
function shownText({ text, bytes }) {
  if (bytes === null || (text !== "" && !text.includes(BROKEN))) return text;
  return new ByteText(bytes.replace(/../g, "\\x$&"));
}

/** A token's text as nodes, in lines as it has them. */
function shownPiece(token) {
  const text = shownText(token);
  if (text instanceof ByteText) return [el("span", { class: "bytes" }, String(text))];
  if (text === "") return [el("i", { class: "mark" }, "…")];
  return pieces(text).flatMap((node) => (node.textContent === "↵" ? [node, el("br")] : [node]));
}

/** What a latent is known by, as nodes: its label, else the tokens that it is strongest on. */
function knownBy(data, latent) {
  const label = data.list.sureName(latent);
  if (label !== null) return labelText(label);
  return data.examples === null ? [] : topTokens(data, latent, 3);
}

/** A text and the latents at its tokens. */
class Reading {
  /** `steer`: what to do with a latent that is to be steered. */
  constructor(view, steer) {
    Object.assign(this, { view, steer, tokens: [], chosen: null, marked: null });
    this.text = document.getElementById("try-text");
    this.list = part(view, "tokens");
    part(view, "read").addEventListener("submit", (event) => this.read(event));
    part(view, "whole").addEventListener("click", () => this.choose(null));
    this.text.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) event.target.form.requestSubmit();
    });
    this.list.addEventListener("keydown", (event) => this.press(event));
    this.list.addEventListener("click", (event) => {
      const option = event.target.closest("[role=option]");
      if (option) this.choose(this.options.indexOf(option), true);
    });
  }

  read(event) {
    event.preventDefault();
    asked(event.target, "Reading …", async () => {
      this.data = await latentData();
      this.tokens = (await ask("api/latents", { text: this.text.value })).tokens;
      this.options = this.tokens.map((one) => {
        const { text, special } = one;
        const name = text === "" ? "part of the next character" : text.trim() || JSON.stringify(text);
        const style = special ? "try-token try-special" : "try-token";
        return el("span", { role: "option", class: style, tabindex: -1, "aria-label": name }, shownPiece(one));
      });
      clear(this.list, this.options);
      part(this.view, "found").hidden = false;
      this.choose(null);
      return `${num(this.tokens.length)} tokens were read.`;
    });
  }

  press(event) {
    const here = this.options.indexOf(event.target);
    const last = this.options.length - 1;
    const keys = { ArrowRight: here + 1, ArrowDown: here + 1, ArrowLeft: here - 1, ArrowUp: here - 1, Home: 0, End: last };
    const to = event.key === "Enter" || event.key === " " ? here : keys[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.choose(Math.max(0, Math.min(last, to)), true);
  }

  /** Show the latents of a token, or of the whole text. */
  choose(place, focus = false) {
    Object.assign(this, { chosen: place, marked: null });
    this.options.forEach((option, i) => {
      option.setAttribute("aria-selected", String(i === place));
      option.tabIndex = i === (place ?? 0) ? 0 : -1;
    });
    if (focus) this.options[place].focus();
    const token = place === null ? null : this.tokens[place];
    const rows = this.strongest();
    const top = Math.max(0, ...this.tokens.flatMap(({ latents }) => latents.map(([, value]) => Math.abs(value))));
    part(this.view, "whole").hidden = token === null;
    const title = token ? ["Latents at ", el("code", {}, shownPiece(token))] : ["Latents of the whole text"];
    clear(part(this.view, "latents-title"), title);
    part(this.view, "latents-hint").textContent = Reading.hint(token, rows.length);
    clear(part(this.view, "latents"), rows.map(([latent, value]) => this.row(latent, value, top)));
    this.mark(null);
  }

  static hint(token, n) {
    if (token === null) return `The ${n} strongest, each where it is largest.`;
    if (token.special) return "A special token: coders are not trained on these, and they are never edited.";
    return n < token.active ? `The ${n} strongest of the ${token.active} that are active.` : `${n} are active.`;
  }

  /** Latents and their activations at the chosen token; of the whole text, as many as a token has at most. */
  strongest() {
    if (this.chosen !== null) return this.tokens[this.chosen].latents;
    const largest = new Map();
    for (const [latent, value] of this.tokens.flatMap(({ latents }) => latents)) {
      if (Math.abs(value) > Math.abs(largest.get(latent) ?? 0)) largest.set(latent, value);
    }
    const most = Math.max(...this.tokens.map(({ latents }) => latents.length));
    return [...largest].sort((a, b) => Math.abs(b[1]) - Math.abs(a[1])).slice(0, most);
  }

  row(latent, value, top) {
    const marks = { type: "button", "aria-pressed": "false", "data-latent": latent };
    return el(
      "li",
      {},
      latentLink(latent),
      el("span", { class: "try-label" }, knownBy(this.data, latent)),
      el("span", { class: "try-bar", style: strength(value, top), "aria-hidden": "true" }),
      el("span", { class: "try-value" }, num(value, 3)),
      el(
        "button",
        { ...marks, "aria-label": `Mark where latent ${latent} fires`, onclick: () => this.mark(this.marked === latent ? null : latent) },
        "Mark",
      ),
      el("button", { type: "button", "aria-label": `Steer latent ${latent}`, onclick: () => this.steer(latent) }, "Steer"),
    );
  }

  /** Colour the tokens by a latent's activation, where it is among the strongest; null: by none. */
  mark(latent) {
    this.marked = latent;
    const values = this.tokens.map(({ latents }) => latents.find(([other]) => other === latent)?.[1] ?? 0);
    const top = Math.max(0, ...values.map(Math.abs));
    this.options.forEach((option, i) => {
      colour(option, values[i], top);
      option.title = latent === null ? "" : `latent ${latent}: ${num(values[i], 3)}`;
    });
    for (const button of part(this.view, "latents").querySelectorAll("[aria-pressed]")) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.latent) === latent));
    }
  }
}

/** Called once steering.js is there too, and before the page's first view is shown. */
function startTrying() {
  const view = document.getElementById("view-try");
  const steering = new Steering(view);
  new Reading(view, (latent) => steering.add(latent));
  shown.set("try", async (rest, moved) => {
    if (/^\d+$/.test(rest)) await steering.add(Number(rest));
    else if (moved) focusHeading(view);
  });
  onLatent.push((latent, actions) => actions.append(el("a", { href: `#try/${latent}` }, "Steer with this")));
}
