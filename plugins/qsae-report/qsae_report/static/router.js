// Which view is shown: the part of the address behind #.

const FIRST = "overview";
const shown = new Map(); // view -> what to do when it is shown, with the rest of the address

function go(place) {
  location.hash = `#${place}`;
}

function views() {
  return [...document.querySelectorAll("section[data-view]")];
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return ""; // a % that says nothing
  }
}

/** The view and the rest of the address. A view of that name that the page does not have is the first one. */
function place() {
  const [name, ...rest] = decoded(location.hash.slice(1)).split("?")[0].split("/");
  const known = views().some((view) => view.dataset.view === name);
  return known ? [name, rest.join("/")] : [FIRST, ""];
}

async function route(event) {
  if (location.hash === "#main") return;
  const [name, rest] = place();
  for (const view of views()) view.hidden = view.dataset.view !== name;
  const listed = name === "latent" ? "latents" : name;
  for (const link of document.querySelectorAll("#views a")) {
    if (link.getAttribute("href") === `#${listed}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const view = document.querySelector(`section[data-view="${name}"]`);
  if (event) window.scrollTo(0, 0);
  const act = shown.get(name);
  if (act) await act(rest, Boolean(event));
  else if (event) focusHeading(view);
  document.title = [view.querySelector("h2").textContent, document.body.dataset.title].join(" – ");
}

function focusHeading(view) {
  const heading = view.querySelector("h2");
  heading.tabIndex = -1;
  heading.focus({ preventScroll: true });
}

/** A part of a view that the address names, such as one evaluation. */
function scrollToPart(view, rest) {
  const part = rest === "" ? null : document.getElementById(`${view.dataset.view}-${rest}`);
  if (part !== null) part.scrollIntoView();
}
