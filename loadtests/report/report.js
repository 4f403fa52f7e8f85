"use strict";
// Shows the values at one moment, which it takes from the table of values, and marks the moment in every panel.
(() => {
  const table = document.getElementById("values");
  const readout = document.getElementById("readout");
  if (!table || !readout) return;
  const heads = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
  const rows = [...table.tBodies[0].rows].map((row) => [...row.cells].map((cell) => cell.textContent));
  const starts = rows.map((row) => Number(row[0].replaceAll(",", "")));
  const charts = [...document.querySelectorAll(".course .chart")];
  const seconds = Number(readout.dataset.seconds);
  const hint = readout.textContent;
  let shown = -1;

  function part(name, value) {
    const span = document.createElement("span");
    const bold = document.createElement("b");
    bold.textContent = value;
    span.append(`${name} `, bold);
    return span;
  }

  function show(index) {
    shown = Math.max(0, Math.min(index, rows.length - 1));
    const end = shown + 1 < starts.length ? starts[shown + 1] : seconds;
    const parts = heads.slice(1).map((head, column) => part(head, rows[shown][column + 1]));
    readout.replaceChildren(part("second", rows[shown][0]), ...parts);
    for (const chart of charts) {
      const { left, right } = chart.dataset;
      const x = Number(left) + ((starts[shown] + end) / 2 / seconds) * (right - left);
      const cursor = chart.querySelector(".cursor");
      cursor.setAttribute("transform", `translate(${x - left} 0)`);
      cursor.style.visibility = "visible";
    }
  }

  function hide() {
    shown = -1;
    readout.textContent = hint;
    for (const chart of charts) chart.querySelector(".cursor").style.visibility = "hidden";
  }

  function follow(event) {
    const chart = event.currentTarget;
    const area = chart.getBoundingClientRect();
    const x = ((event.clientX - area.left) / area.width) * chart.viewBox.baseVal.width;
    const { left, right } = chart.dataset;
    const at = ((x - left) / (right - left)) * seconds;
    if (at < 0 || at > seconds) return;
    show(starts.findLastIndex((start) => start <= at));
  }

  for (const chart of charts) {
    chart.addEventListener("pointermove", follow);
    chart.addEventListener("pointerdown", follow);
    chart.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && hide());
  }
  const figure = charts[0].closest("figure");
  figure.tabIndex = 0;
  figure.addEventListener("keydown", (event) => {
    const to = { ArrowRight: shown + 1, ArrowLeft: shown - 1, Home: 0, End: rows.length - 1 }[event.key];
    if (event.key === "Escape") hide();
    if (to === undefined) return;
    event.preventDefault();
    show(to);
  });
  readout.hidden = false;
})();
