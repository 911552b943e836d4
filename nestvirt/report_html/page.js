"use strict";
// Sorts and filters the table, opens what a link leads to, and opens each target for the printer.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], heads = Array.from(table.tHead.rows[0].cells);
  const key = (row, column) => row.cells[column].dataset.key ?? row.cells[column].textContent.trim();
  const words = new Intl.Collator(undefined, { numeric: true });
  const order = (a, b) => (isNaN(a) || isNaN(b) ? words.compare(a, b) : a - b);
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = Array.from(body.rows).sort((a, b) => order(key(a, column), key(b, column)));
      body.append(...(down ? rows.reverse() : rows));
    });
  });
  const find = document.querySelector(".find");
  if (find) {
    find.hidden = false;
    find.querySelector("input").addEventListener("input", (event) => {
      const wanted = event.target.value.toLowerCase().split(/\s+/);
      for (const row of body.rows) {
        const said = row.textContent.toLowerCase();
        row.hidden = !wanted.every((word) => said.includes(word));
      }
    });
  }
}
const follow = () => {
  const led = document.getElementById(location.hash.slice(1));
  if (led instanceof HTMLDetailsElement) led.open = true;
};
addEventListener("hashchange", follow);
follow();
addEventListener("beforeprint", () => {
  for (const closed of document.querySelectorAll("details.target:not([open])")) {
    closed.dataset.printed = "";
    closed.open = true;
  }
});
addEventListener("afterprint", () => {
  for (const opened of document.querySelectorAll("details[data-printed]")) {
    delete opened.dataset.printed;
    opened.open = false;
  }
});
