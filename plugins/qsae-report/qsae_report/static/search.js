// Which latents a text is in: their labels, the tokens that they raise, and every window of their examples.

/** Lower case, with as many UTF-16 units as the text has where that can be. */
function folded(text) {
  return text.toLowerCase();
}

/** Finds windows of text: all of it is searched once, and windows are looked up in what was found. */
class TextSearch {
  constructor(examples) {
    const vocabulary = examples.vocabulary.map(folded);
    const tokens = examples.text.tokens;
    this.examples = examples;
    this.from = starts(Uint32Array.from(tokens, (token) => vocabulary[token].length));
    this.all = Array.from(tokens, (token) => vocabulary[token]).join("");
  }

  /** For each token, how many occurrences begin before it, and how many end before or with it. */
  occurrences(needle) {
    const n = this.from.length - 1;
    const [begun, ended] = [new Uint32Array(n + 1), new Uint32Array(n + 1)];
    let [first, last] = [0, 0];
    for (let at = this.all.indexOf(needle); at >= 0; at = this.all.indexOf(needle, at + 1)) {
      while (this.from[first + 1] <= at) first++;
      while (this.from[last + 1] < at + needle.length) last++;
      begun[first + 1]++;
      ended[last + 1]++;
    }
    for (let i = 0; i < n; i++) {
      begun[i + 1] += begun[i];
      ended[i + 1] += ended[i];
    }
    return { begun, ended };
  }

  /** Set the latents that have an example with the text in its window. */
  mark(needle, found) {
    const { begun, ended } = this.occurrences(needle);
    if (begun[begun.length - 1] === 0) return;
    const { offsets, start, length } = this.examples.e;
    for (let latent = 0; latent < found.length; latent++) {
      for (let i = offsets[latent]; i < offsets[latent + 1] && !found[latent]; i++) {
        // those that begin before the window all end before those within it do
        if (ended[start[i] + length[i]] > begun[start[i]]) found[latent] = 1;
      }
    }
  }
}

class Search {
  constructor(data) {
    this.data = data;
    this.text = null;
  }

  /** One byte a latent: whether it is found; null for an empty needle, by which all are. */
  find(query) {
    const needle = folded(query);
    if (needle.trim() === "") return null;
    const found = new Uint8Array(about.latents);
    this.markNumber(query, found);
    for (const [latent, label] of about.labels) if (folded(label).includes(needle)) found[latent] = 1;
    this.markRaised(needle, found);
    if (this.data.examples !== null) {
      this.text = this.text || new TextSearch(this.data.examples);
      this.text.mark(needle, found);
    }
    return found;
  }

  markNumber(query, found) {
    const number = query.trim().replace(/^#/, "");
    if (/^\d+$/.test(number) && Number(number) < found.length) found[Number(number)] = 1;
  }

  /** Latents one of whose raised tokens contains the text. */
  markRaised(needle, found) {
    const { logits, texts } = this.data;
    if (logits === null) return;
    const matches = texts.map((text) => folded(String(text)).includes(needle));
    const each = logits.token.length / about.latents;
    for (let latent = 0; latent < found.length; latent++) {
      for (let i = 0; i < each / 2 && !found[latent]; i++) {
        if (matches[logits.token[latent * each + i]]) found[latent] = 1;
      }
    }
  }
}
