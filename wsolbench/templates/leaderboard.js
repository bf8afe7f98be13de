"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const one = (selector, root = document) => root.querySelector(selector);
  const PAGE = 8; // strips of a gallery before "show more"

  // ---- tables: a heading sorts, and again the other way round; what is undefined stays last
  function sortTable(table, column, ascending) {
    const body = table.tBodies[0];
    const key = (row) => row.cells[column].dataset.v;
    const compare = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      const [u, v] = [Number.parseFloat(x), Number.parseFloat(y)];
      const order = Number.isNaN(u) || Number.isNaN(v) ? x.localeCompare(y) : u - v;
      return ascending ? order : -order;
    };
    body.append(...[...body.rows].sort(compare));
    all("thead th", table).forEach((th, n) => {
      if (n === column) th.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      else th.removeAttribute("aria-sort");
    });
  }
  for (const button of all(".sortable thead button")) {
    button.addEventListener("click", () => {
      const th = button.parentElement;
      const current = th.getAttribute("aria-sort");
      // figures are asked for from the best down, names and ranks from the first up
      const ascending = current ? current === "descending" : !th.classList.contains("number");
      sortTable(th.closest("table"), th.cellIndex, ascending);
    });
  }

  // ---- filters: comparisons by what they are, rows by backbone and method
  const filters = one("#filters");
  function applyFilters() {
    const wanted = Object.fromEntries(all("[data-filter]", filters).map((f) => [f.dataset.filter, f.value]));
    const method = wanted.method.trim().toLowerCase();
    let rows = 0;
    let groups = 0;
    for (const group of all(".group")) {
      const fits = ["dataset", "regime", "protocol"].every((name) => !wanted[name] || group.dataset[name] === wanted[name]);
      let shown = 0;
      for (const row of all("table.sortable tbody tr", group)) {
        const keep = fits && (!wanted.backbone || row.dataset.backbone === wanted.backbone) &&
          row.dataset.method.toLowerCase().includes(method);
        row.hidden = !keep;
        one(`.forest [data-row="${row.dataset.row}"]`, group)?.toggleAttribute("hidden", !keep);
        document.getElementById(row.dataset.row).hidden = !keep;
        shown += keep;
      }
      group.hidden = !shown;
      rows += shown;
      groups += shown > 0;
    }
    one("#shown").textContent = rows ? `${rows} rows in ${groups} comparisons` : "Nothing fits; show all?";
  }
  if (filters) {
    filters.addEventListener("input", applyFilters);
    filters.addEventListener("submit", (event) => event.preventDefault());
    filters.addEventListener("reset", () => setTimeout(applyFilters));
    applyFilters();
  }

  // ---- why and cost: one comparison at a time
  function focusOn(id) {
    for (const select of all("[data-focus]")) select.value = id;
    for (const article of all(".focused")) article.hidden = article.dataset.group !== id;
  }
  for (const select of all("[data-focus]")) select.addEventListener("change", () => focusOn(select.value));
  const first = one("[data-focus]");
  if (first) focusOn((one("option[data-gallery]", first) ?? first.options[0]).value);

  // ---- galleries
  for (const controls of all("[data-gallery].gallery-controls")) {
    const strips = document.getElementById(`strips-${controls.dataset.gallery}`);
    const more = one(`[data-more="${controls.dataset.gallery}"]`);
    let limit = PAGE;
    const show = () => {
      const failing = one("[data-failing]", controls).value;
      let fitting = 0;
      for (const strip of all(".strip", strips)) {
        const fits = !failing || strip.dataset.failing.split(" ").includes(failing);
        fitting += fits;
        strip.hidden = !fits || fitting > limit;
      }
      more.hidden = fitting <= limit;
    };
    one("[data-failing]", controls).addEventListener("change", () => { limit = PAGE; show(); });
    one("[data-opacity]", controls).addEventListener("input", (event) =>
      strips.style.setProperty("--map", event.target.value / 100));
    more.addEventListener("click", () => { limit += 2 * PAGE; show(); });
    show();
  }

  // ---- a phone shows the plots first, and all figures when asked
  if (matchMedia("(max-width: 640px)").matches) {
    for (const figures of all(".figures")) figures.open = false;
  }

  // ---- links into the page open what they lead to
  function reveal() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    if (target.matches("details")) {
      if (target.hidden) filters.reset();
      target.open = true;
    }
    const group = target.dataset.group;
    if (group) focusOn(group);
    // after the filters, which wait for the form
    setTimeout(() => {
      target.scrollIntoView({ block: "start" });
      one("summary", target)?.focus({ preventScroll: true });
    });
  }
  window.addEventListener("hashchange", reveal);
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#"]');
    const here = link && (link.getAttribute("href") === location.hash);
    if (here) reveal(); // no hashchange comes for the place one is at
  });
  reveal();

  // ---- copying; where the browser forbids it, the command is selected instead
  for (const button of all(".copy")) {
    button.addEventListener("click", async () => {
      const code = one("code", button.parentElement);
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "copied";
      } catch {
        getSelection().selectAllChildren(code);
        button.textContent = "selected";
      }
    });
  }

  // ---- published figures
  const published = one("[data-published]");
  published?.addEventListener("input", () => {
    const words = published.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of all("#published-table tbody tr")) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
  });
})();
