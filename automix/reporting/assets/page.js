"use strict";
(() => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const themes = ["light", "dark"];

  // Some browsers forbid storage for pages opened from a file; the page works without it.
  const stored = () => { try { return localStorage.getItem("automix-theme"); } catch { return null; } };
  const store = (theme) => { try { localStorage.setItem("automix-theme", theme); } catch { /* see above */ } };
  if (themes.includes(stored())) root.dataset.theme = stored();

  const current = () => root.dataset.theme ?? (dark.matches ? "dark" : "light");

  const addThemeButton = () => {
    const button = document.querySelector(".theme");
    if (!button) return;
    const label = () => { button.textContent = current() === "dark" ? "Light theme" : "Dark theme"; };
    button.addEventListener("click", () => {
      root.dataset.theme = current() === "dark" ? "light" : "dark";
      store(root.dataset.theme);
      label();
    });
    dark.addEventListener("change", label);
    label();
    button.hidden = false;
  };

  // Empty cells go last in either direction; numbers come before text.
  const key = (row, index) => {
    const cell = row.cells[index];
    if (cell.dataset.value !== undefined) return [0, Number(cell.dataset.value)];
    const text = cell.textContent.trim();
    return [text === "" ? 2 : 1, text];
  };
  const compare = (a, b, sign) => {
    if (a[0] !== b[0]) return a[0] - b[0];
    return sign * (a[0] === 0 ? a[1] - b[1] : a[1].localeCompare(b[1], undefined, { numeric: true }));
  };

  const makeSortable = (table) => {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, index) => head.querySelector("button").addEventListener("click", () => {
      const sign = head.ariaSort === "ascending" ? -1 : 1;
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => compare(key(a, index), key(b, index), sign));
      table.tBodies[0].append(...rows);
    }));
  };

  // A page that is written again while runs are in progress; the browser keeps the place on it.
  const reloadLater = () => {
    const seconds = Number(document.body.dataset.reload);
    if (seconds > 0) setTimeout(() => location.reload(), 1000 * seconds);
  };

  addEventListener("DOMContentLoaded", () => {
    reloadLater();
    addThemeButton();
    document.querySelectorAll("table.sortable").forEach(makeSortable);
  });
})();
