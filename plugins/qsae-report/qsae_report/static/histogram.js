// The histogram of one latent's activations.

/**
 * Bins of one latent, weakest first: edges and counts, without empty ones at the weak end. `weaker`: the first
 * one holds all that is weaker, too.
 */
function activationBins(data, latent) {
  const { histogram, histogram_top: tops } = data.latents;
  const bins = histogram.length / about.latents;
  const { of_an_octave: each, octaves_below_1: below } = about.samples.bins;
  const counts = Array.from(histogram.subarray(latent * bins, (latent + 1) * bins)).reverse();
  const first = Math.max(
    0,
    counts.findIndex((count) => count > 0),
  );
  const edge = (i) => 2 ** ((tops[latent] - bins + 1 + i) / each - below);
  const edges = Array.from({ length: bins - first + 1 }, (_, i) => edge(first + i));
  return { edges, counts: counts.slice(first), weaker: first === 0 };
}

function activationHistogram(data, latent) {
  const { edges, counts, weaker } = activationBins(data, latent);
  const most = Math.max(...counts);
  if (most === 0) return null;
  const [width, height, base, left] = [304, 128, 96, 42];
  const step = (width - left - 4) / counts.length;
  const bars = counts.map((count, i) => {
    if (count === 0) return null;
    const tall = Math.max(1, (count / most) * (base - 12));
    const said = svg(
      "title",
      {},
      `${weaker && i === 0 ? "up" : num(edges[i], 3)} to ${num(edges[i + 1], 3)}: ${num(count)}`,
    );
    return svg(
      "rect",
      { class: "bar", x: left + i * step, y: base - tall, width: Math.max(1, step - 1), height: tall },
      said,
    );
  });
  const texts = ticks(edges).map(([at, text, anchor]) => {
    return svg("text", { x: left + at * step, y: base + 13, "text-anchor": anchor }, text);
  });
  const firings = counts.reduce((sum, count) => sum + count, 0);
  const label = `Histogram of ${num(firings)} activations from ${num(edges[0], 3)} to ${num(edges[edges.length - 1], 3)}, on a logarithmic scale; the fullest bin has ${num(most)}`;
  return svg(
    "svg",
    { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
    svg("line", { x1: left, x2: width - 4, y1: base + 0.5, y2: base + 0.5, class: "axis" }),
    bars.filter((bar) => bar !== null),
    svg("text", { x: left - 4, y: 18, "text-anchor": "end" }, num(most)),
    svg("text", { x: left - 4, y: base, "text-anchor": "end" }, "0"),
    texts,
    svg(
      "text",
      { x: (width + left) / 2, y: height - 3, "text-anchor": "middle" },
      weaker ? "activation (log scale; the first bar: all below)" : "activation (log scale)",
    ),
  );
}

/** Where the scale is named: at its ends and, where there is room, between. */
function ticks(edges) {
  const last = edges.length - 1;
  const places =
    last >= 16 ? [0, last / 4, last / 2, (3 * last) / 4, last] : last >= 6 ? [0, last / 2, last] : [0, last];
  return places.map(Math.round).map((at, i, all) => {
    return [at, num(edges[at], 2), i === 0 ? "start" : i === all.length - 1 ? "end" : "middle"];
  });
}
