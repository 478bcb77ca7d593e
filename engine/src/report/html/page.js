// Scrolls the drawing to the slowest node, where it is wider than the page.
for (const node of document.querySelectorAll("svg .slowest .box")) {
  const scroll = node.closest(".scroll");
  const [at, view] = [node.getBoundingClientRect(), scroll.getBoundingClientRect()];
  if (at.right > view.right) scroll.scrollLeft = at.right - view.right + 40;
}
// Lets a reader sort the table of nodes by any of its columns.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      // Numbers first from the largest, words from the beginning of the alphabet.
      const isNumber = head.classList.contains("number");
      const first = isNumber ? "descending" : "ascending";
      const other = isNumber ? "ascending" : "descending";
      const order = head.getAttribute("aria-sort") === first ? other : first;
      heads.forEach((h) => h.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const body = table.tBodies[0];
      const key = (row) => row.cells[column].dataset.value;
      const text = (row) => row.cells[column].textContent.trim();
      const rows = [...body.rows].sort((a, b) => sign * (key(a) === undefined
        ? text(a).localeCompare(text(b))
        : Number(key(a)) - Number(key(b))));
      body.append(...rows);
    });
  });
}
