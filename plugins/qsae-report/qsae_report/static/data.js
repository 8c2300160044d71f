// What the page holds: JSON at once, arrays when they are asked for.

const BROKEN = "\ufffd"; // what a part of a character is decoded to
const about = JSON.parse(document.getElementById("about").textContent);
const unpacked = new Map();
const loaded = new Promise((resolve) => {
  if (document.readyState !== "loading") resolve();
  else document.addEventListener("DOMContentLoaded", resolve);
});

function bytesOf(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

async function inflated(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Response(stream).arrayBuffer();
}

async function read(node) {
  const layout = JSON.parse(node.dataset.layout);
  const buffer = await inflated(bytesOf(node.textContent));
  node.textContent = ""; // its bytes are not needed twice
  if (layout === null) return JSON.parse(new TextDecoder().decode(buffer));
  const arrays = {};
  for (const [name, type, offset, length] of layout) {
    arrays[name] = new window[type](buffer, offset, length);
  }
  return arrays;
}

/** Arrays by name, or a value; null where the page has no such block. Blocks stand behind this script. */
function block(name) {
  if (!unpacked.has(name)) {
    const found = loaded.then(() => document.getElementById(`block-${name}`));
    unpacked.set(
      name,
      found.then((node) => (node === null ? null : read(node))),
    );
  }
  return unpacked.get(name);
}

/** Several blocks: name -> what `block` gives. */
async function blocks(...names) {
  const found = await Promise.all(names.map(block));
  return Object.fromEntries(names.map((name, i) => [name, found[i]]));
}

/** Places where each row's entries begin, from how many each has; one more than there are rows. */
function starts(lengths) {
  const found = new Uint32Array(lengths.length + 1);
  for (let i = 0; i < lengths.length; i++) found[i + 1] = found[i] + lengths[i];
  return found;
}

/** Examples of latents, and the text that they are windows of. */
class Examples {
  constructor(examples, text, vocabulary) {
    this.e = examples;
    this.text = text;
    this.vocabulary = vocabulary.texts;
    this.spelled = spelledTexts(vocabulary);
    this.entries = starts(examples.active);
  }

  /** Numbers of a latent's examples. */
  of(latent) {
    const [from, to] = [this.e.offsets[latent], this.e.offsets[latent + 1]];
    return Array.from({ length: to - from }, (_, i) => from + i);
  }

  piece(at) {
    return this.vocabulary[this.text.tokens[at]];
  }

  /**
   * What is shown at a token before `end`, and behind which token that ends: its text, the character that it is a
   * part of, or its bytes where that character is not there.
   */
  whole(at, end) {
    let last = at;
    while (this.piece(last) === "" && last + 1 < end) last++;
    const text = this.piece(last);
    if (text !== "" && !text.includes(BROKEN)) return { text, end: last + 1 };
    return { text: this.spelled[this.text.tokens[at]], end: at + 1 };
  }

  peak(i) {
    return this.e.start[i] + this.e.peak[i];
  }

  /**
   * An example: its pieces, each with the latent's activations on the tokens that make it, which of them it is
   * about, the activation there, and where it stands.
   */
  example(i, latent) {
    const { start, length, peak, group, at, value, unit } = this.e;
    const activations = new Float32Array(length[i]);
    for (let k = this.entries[i]; k < this.entries[i + 1]; k++) activations[at[k]] = value[k] * unit[latent];
    const pieces = [];
    let middle = 0;
    for (let from = 0; from < length[i]; ) {
      const { text, end } = this.whole(start[i] + from, start[i] + length[i]);
      const to = end - start[i];
      if (from <= peak[i] && peak[i] < to) middle = pieces.length;
      pieces.push({ text, activations: activations.subarray(from, to) });
      from = to;
    }
    const where = this.place(start[i], peak[i]);
    return { pieces, peak: middle, value: activations[peak[i]], group: group[i], ...where };
  }

  place(start, peak) {
    const t = this.text;
    let [low, high] = [0, t.stretch_start.length];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (t.stretch_start[middle] <= start) low = middle;
      else high = middle;
    }
    const position = t.stretch_position[low] + start - t.stretch_start[low] + peak;
    return { document: t.stretch_document[low], context: t.stretch_context[low], position };
  }

  /** The tokens on which a latent's strongest examples peak, the most frequent first. */
  topTokens(latent, examples, tokens) {
    const counts = new Map();
    const [from, to] = [this.e.offsets[latent], this.e.offsets[latent + 1]];
    for (let i = from; i < Math.min(to, from + examples) && this.e.group[i] === 0; i++) {
      const piece = this.whole(this.peak(i), this.e.start[i] + this.e.length[i]).text;
      counts.set(piece, (counts.get(piece) || 0) + 1);
    }
    return [...counts]
      .sort((a, b) => b[1] - a[1])
      .slice(0, tokens)
      .map(([piece]) => piece);
  }
}

/** The examples of a prefix of blocks; null where there are none. */
async function examplesOf(prefix) {
  const names = ["examples", "text", "pieces"].map((name) => prefix + name);
  const found = await blocks(...names);
  return found[names[0]] === null ? null : new Examples(...names.map((name) => found[name]));
}
