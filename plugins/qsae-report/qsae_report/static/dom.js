// Elements and numbers. Text of the data reaches the page as text nodes alone.

const UNDEFINED = "–";
const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes; of children, strings become text nodes and null is left out. */
function el(tag, attributes, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same within an svg element. */
function svg(tag, attributes, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined) node.append(child);
  }
  return node;
}

function clear(node, ...children) {
  node.replaceChildren(...children.flat().filter((child) => child !== null));
  return node;
}

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

/**
 * `32,885`, `0.09832`, `1.20e-5`; an en dash where it is not defined. With a number of digits, whole numbers have
 * them too: `5.00` among `4.97` and `5.02`.
 */
function num(value, significant) {
  if (value === null || value === undefined || Number.isNaN(value)) return UNDEFINED;
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const [size, digits] = [Math.abs(value), significant || 4];
  let text;
  if ((Number.isInteger(value) && !significant) || size >= 10 ** digits) text = whole.format(value);
  else if (size !== 0 && size < 1e-3) text = value.toExponential(digits - 2);
  else {
    const places = Math.max(0, digits - 1 - Math.floor(Math.log10(size || 1)));
    text = value.toLocaleString("en-US", { minimumFractionDigits: places, maximumFractionDigits: places });
  }
  return text.replace(/-/g, "−");
}

/** `2.37%` of 0.0237. */
function percent(share) {
  if (share === null || share === undefined || Number.isNaN(share)) return UNDEFINED;
  const value = 100 * share;
  if (value === 0) return "0%";
  if (value < 0.001) return `${num(value, 3)}%`;
  return `${value.toFixed(Math.max(0, 2 - Math.floor(Math.log10(value))))}%`;
}

/** What a token is that is a part of a character: its bytes, as `\xe2\x80`. */
class ByteText {
  constructor(spelled) {
    this.spelled = spelled;
  }

  toString() {
    return this.spelled;
  }
}

/** Texts of tokens, of which those that are parts of characters are bytes. */
function spelledTexts({ texts, bytes }) {
  return texts.map((text, i) => (i in bytes ? new ByteText(bytes[i]) : text));
}

/** A text with what cannot be seen made visible, such as the ends of lines. */
function visible(text) {
  return String(text).replace(/[\u0000-\u0008\u000b-\u001f]/g, (c) =>
    String.fromCharCode(0x2400 + c.charCodeAt(0)),
  );
}

const MARKS = { "\n": "↵", "\t": "⇥", " ": "·" };

/** A text as nodes, with marks in place of what the one group of an expression finds: blanks. */
function markedBy(expression, text) {
  return visible(text)
    .split(expression)
    .flatMap((part, i) => {
      if (i % 2 === 1) return [...part].map((blank) => el("i", { class: "mark" }, MARKS[blank]));
      return part === "" ? [] : [part];
    });
}

/** Text of a token in a window as nodes: ends of lines and tabs as marks, blanks as they are. */
function pieces(text) {
  return markedBy(/([\n\t])/, text);
}

/** A token by itself, with every blank as a mark. */
function token(text) {
  const bytes = text instanceof ByteText;
  const attributes = { class: bytes ? "token bytes" : "token", title: bytes ? "bytes of a character" : null };
  return el("code", attributes, text === "" ? "∅" : bytes ? String(text) : markedBy(/([\n\t ])/, text));
}

/** A token in words that are no nodes, such as a title. */
function tokenWords(text) {
  return `“${visible(text).replace(/[\n\t ]/g, (c) => MARKS[c])}”`;
}

/** A label as nodes: blanks that would not be seen, at its ends and beside one another, are marks. */
function labelText(text) {
  return markedBy(/([\n\t]|^ +| +$| {2,})/, text);
}
