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

/** A text with what cannot be seen made visible, such as the ends of lines. */
function visible(text) {
  return text.replace(/[\u0000-\u0008\u000b-\u001f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)));
}

/** Text of a token as nodes: ends of lines and tabs as marks that a reader of screens does not hear. */
function pieces(text) {
  return visible(text)
    .split(/([\n\t])/)
    .filter((part) => part !== "")
    .map((part) => {
      if (part === "\n") return el("i", { class: "mark" }, "↵");
      if (part === "\t") return el("i", { class: "mark" }, "⇥");
      return part;
    });
}

/** A token by itself, in quotes that show where its spaces are. */
function token(text) {
  return el("code", { class: "token" }, text === "" ? "∅" : pieces(text));
}
