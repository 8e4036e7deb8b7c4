// Tables and texts that change once a second: nothing is touched that stays as it is, so that focus and selection stay too.
export const byId = (id) => document.getElementById(id);

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function element(name, { text = "", className = "", ...attributes } = {}) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  if (className) made.className = className;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// Show rows in a table's body: `build` makes the row of a key once, `update` brings it up to date.
export function keyedRows(table, items, keyOf, build, update) {
  const body = table.tBodies[0];
  const known = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  let place = body.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    let row = known.get(key);
    known.delete(key);
    if (!row) {
      row = build(item);
      row.dataset.key = key;
    }
    update(row, item);
    if (row === place) place = place.nextElementSibling;
    else body.insertBefore(row, place);
  }
  known.forEach((row) => row.remove());
}

// Make a row of cells: `th` for the first, a class for each.
export function row(classes) {
  const made = document.createElement("tr");
  classes.forEach((className, at) => made.append(element(at ? "td" : "th", { className, ...(at ? {} : { scope: "row" }) })));
  return made;
}
