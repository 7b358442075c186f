// Draws the result matrix and keeps the page fresh; everything it shows is already in the page.
"use strict";

const REFRESH_MS = 60000;

function drawMatrix() {
  const place = document.getElementById("matrix");
  const data = document.getElementById("matrix-data");
  if (!place || !data || typeof Plotly === "undefined") return;
  const matrix = JSON.parse(data.textContent);
  const ink = getComputedStyle(document.body).color;
  const rows = matrix.versions.length;
  const heat = {
    type: "heatmap",
    x: matrix.sites,
    y: matrix.versions,
    z: matrix.values,
    text: matrix.text,
    texttemplate: "%{text}",
    hovertemplate: "%{y} on %{x}: %{z:.3f}<extra></extra>",
    // One hue from light to dark reads the same with and without colour-blindness, and ink stays legible on all of it;
    // steps widen towards 1, where versions differ. The range is fixed so that pages compare.
    colorscale: [[0, "#f7f1e6"], [0.5, "#e4ebe6"], [0.7, "#bfdbe8"], [0.85, "#88c0e4"], [1, "#4b9bd6"]],
    textfont: { color: "#10161c", size: 15 },
    zmin: 0,
    zmax: 1,
    xgap: 3,
    ygap: 3,
    hoverongaps: false,
    colorbar: { title: { text: matrix.metric, side: "right" }, thickness: 12, outlinewidth: 0 },
  };
  const layout = {
    height: Math.min(900, 110 + 46 * rows),
    margin: { l: 10, r: 10, t: 40, b: 10 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: ink, family: getComputedStyle(document.body).fontFamily, size: 14 },
    xaxis: { side: "top", type: "category", automargin: true, fixedrange: true, showgrid: false, ticks: "" },
    yaxis: { type: "category", automargin: true, fixedrange: true, showgrid: false, ticks: "" },
  };
  Plotly.react(place, [heat], layout, { displayModeBar: false, responsive: true });
}

function submitOnChoice() {
  const choice = document.getElementById("adapter");
  if (choice) choice.addEventListener("change", () => choice.form.submit());
}

function refreshWhenIdle() {
  // Not while someone reads a table or stands on a control with the keyboard.
  setInterval(() => {
    const busy = document.hidden || document.querySelector("details[open]") || document.activeElement !== document.body;
    if (!busy) location.reload();
  }, REFRESH_MS);
}

drawMatrix();
submitOnChoice();
refreshWhenIdle();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawMatrix);
