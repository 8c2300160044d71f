// What happens when the page is opened.

let everything = null;

/** All that is known of latents, unpacked once. */
function latentData() {
  everything = everything || readAll();
  return everything;
}

async function readAll() {
  const found = await blocks("latents", "columns", "nearest", "logits", "logit-texts", "tables");
  const others = await Promise.all(
    about.others.map(async ({ name, differs }, i) => {
      return { name, differs, match: await block(`other-${i}`), examples: await examplesOf(`other-${i}-`) };
    }),
  );
  const data = {
    latents: found.latents,
    nearest: found.nearest,
    logits: found.logits,
    texts: found["logit-texts"] === null ? null : spelledTexts(found["logit-texts"]),
    tables: found.tables,
    examples: await examplesOf(""),
    others,
    columns: new Columns(found, others),
  };
  data.list = new LatentList(data);
  return data;
}

function theme() {
  const select = document.getElementById("theme");
  try {
    select.value = localStorage.getItem("qsae-theme") || "auto";
  } catch {
    select.value = "auto"; // a browser that keeps nothing for files
  }
  const apply = () => (document.documentElement.dataset.theme = select.value);
  apply();
  select.addEventListener("change", () => {
    apply();
    try {
      localStorage.setItem("qsae-theme", select.value);
    } catch {
      // it holds until the page is closed
    }
  });
}

/** The arrow keys go from latent to latent, unless they have something else to do. */
function arrows(event) {
  if (place()[0] !== "latent" || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
  if (event.target.closest("input, select, textarea, .scroll")) return;
  const link = document.getElementById(`step-${event.key}`);
  if (link !== null) link.click();
}

/** What a latent is, in a few words, when a link to it is pointed at. */
async function introduce(event) {
  const link = event.target.closest('a[href^="#latent/"]');
  const latent = link === null ? NaN : Number(link.getAttribute("href").slice("#latent/".length));
  if (!isLatent(latent) || link.title !== "") return;
  const { list, examples } = await latentData();
  const tokens = examples === null ? [] : examples.topTokens(latent, OF_STRONGEST, 3);
  const quoted = tokens.map(tokenWords).join(", ");
  const parts = [list.sureName(latent), quoted && `strongest on ${quoted}`];
  link.title = parts.filter(Boolean).join("; ") || `latent ${latent}`;
}

shown.set("latents", async (rest, moved) => {
  const { list } = await latentData();
  if (rest !== "" && list.data.columns.get(rest) !== null) list.show(rest);
  list.draw();
  if (moved) list.focus();
});
shown.set("latent", showLatent);
for (const name of ["evaluations", "survival"]) {
  shown.set(name, async (rest, moved) => {
    const view = document.getElementById(`view-${name}`);
    await Promise.all([fillTables(view), fillColumns(view)]);
    if (moved) focusHeading(view);
    scrollToPart(view, rest);
  });
}
document.getElementById("goto").addEventListener("submit", (event) => {
  event.preventDefault();
  const input = document.getElementById("goto-latent");
  if (input.value.trim() !== "") go(`latent/${input.value.trim().replace(/^#/, "")}`);
  input.value = "";
});
document.getElementById("aligned").addEventListener("change", (event) => {
  document.body.classList.toggle("aligned", event.target.checked);
});
theme();
document.addEventListener("keydown", arrows);
document.addEventListener("mouseover", introduce);
window.addEventListener("hashchange", route);
document.documentElement.classList.add("scripted");
route().then(() => requestAnimationFrame(() => setTimeout(latentData)));
