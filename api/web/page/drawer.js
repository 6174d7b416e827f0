/** On narrow windows the list of conversations is a drawer: it takes the focus, and gives it back. */

const byId = (id) => document.getElementById(id);

/** As in `narrow.css`. */
const isNarrow = matchMedia("(max-width: 48rem)");

export const isDrawerOpen = () => document.body.classList.contains("drawer");

/** On wide windows the list is always there, and this does nothing. */
export function setDrawer(isOpen) {
  const isShown = isOpen && isNarrow.matches;
  const wasShown = isDrawerOpen();
  document.body.classList.toggle("drawer", isShown);
  document.querySelector("main").inert = isShown;
  byId("menu").setAttribute("aria-expanded", String(isShown));
  if (isShown) byId("search").focus();
  else if (wasShown) byId("menu").focus();
}

export function listenToDrawer() {
  byId("menu").addEventListener("click", () => setDrawer(!isDrawerOpen()));
  byId("shade").addEventListener("click", () => setDrawer(false));
  isNarrow.addEventListener("change", () => setDrawer(false));
}
