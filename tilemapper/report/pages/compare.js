"use strict";
// The viewer: two pictures, one over the other. A place is kept in pixels of the map (col, row);
// `zoom` is screen pixels a map pixel, (left, top) the screen place of the map's first pixel.
(() => {
  const facts = JSON.parse(document.getElementById("facts").textContent);
  const by = (id) => document.getElementById(id);
  const viewer = by("viewer"), stage = by("stage"), map = by("map"), heat = by("heat");
  const handle = by("handle"), lattice = by("lattice"), place = by("place");
  // Of the pictures on the screen before the zoom, as the map's sides have it; not quite their pixels.
  const shown = { width: facts.width / facts.shrink, height: facts.height / facts.shrink };
  const view = { zoom: 1, left: 0, top: 0, swipe: 0.5, fitted: true };

  const size = () => ({ width: viewer.clientWidth, height: viewer.clientHeight });
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const fitZoom = () => Math.min(size().width / facts.width, size().height / facts.height);

  function draw() {
    const { width, height } = size();
    stage.style.transform = `translate(${view.left}px, ${view.top}px) scale(${view.zoom * facts.shrink})`;
    stage.classList.toggle("near", view.zoom * facts.shrink > 2);
    const border = clamp((view.swipe * width - view.left) / (view.zoom * facts.shrink), 0, shown.width);
    map.style.clipPath = `inset(0 0 0 ${border}px)`;
    handle.style.left = `${view.swipe * 100}%`;
    handle.setAttribute("aria-valuenow", Math.round(view.swipe * 100));
    handle.setAttribute("aria-valuetext", `${Math.round(view.swipe * 100)} % satellite`);
    const box = [-view.left, -view.top, width, height].map((v) => v / view.zoom);
    lattice.setAttribute("viewBox", box.join(" "));
    // Lines closer than that would be a veil; blocks are shown from any distance.
    const far = facts.stride * view.zoom < 12;
    lattice.classList.toggle("far", far);
    by("lattice-far").hidden = !far;
    drawScale();
  }

  function drawScale() {
    // A round length of at most 140 screen pixels; metres where they are known.
    const unit = facts.gsd_m || 1, most = 140 / view.zoom * unit;
    const power = 10 ** Math.floor(Math.log10(most));
    const length = [5, 2, 1].find((n) => n * power <= most) * power;
    const words = !facts.gsd_m ? `${length} px` : length >= 1000 ? `${length / 1000} km`
      : length >= 1 ? `${length} m` : `${Number((length * 100).toPrecision(3))} cm`;
    by("scale-words").textContent = words;
    by("scale-bar").style.width = `${length / unit * view.zoom}px`;
  }

  function hold() {
    // The picture may be moved until its edge is in the middle, so that it is never lost.
    const { width, height } = size();
    view.left = clamp(view.left, width / 2 - facts.width * view.zoom, width / 2);
    view.top = clamp(view.top, height / 2 - facts.height * view.zoom, height / 2);
    draw();
  }

  function zoomTo(zoom, x = size().width / 2, y = size().height / 2) {
    zoom = clamp(zoom, fitZoom() / 2, Math.max(12, fitZoom())); // a few pixels are larger as a whole
    const factor = zoom / view.zoom;
    view.left = x - (x - view.left) * factor;
    view.top = y - (y - view.top) * factor;
    view.zoom = zoom;
    view.fitted = false;
    hold();
  }

  function fit() {
    const { width, height } = size();
    view.zoom = fitZoom();
    view.left = (width - facts.width * view.zoom) / 2;
    view.top = (height - facts.height * view.zoom) / 2;
    view.fitted = true;
    draw();
  }

  function goTo(col, row, zoom) {
    const { width, height } = size();
    Object.assign(view, { zoom, left: width / 2 - col * zoom, top: height / 2 - row * zoom, fitted: false });
    hold();
  }

  const swipeTo = (share) => { view.swipe = clamp(share, 0, 1); draw(); };
  const move = (x, y) => { view.left += x; view.top += y; view.fitted = false; hold(); };

  function tell(x, y) {
    const col = (x - view.left) / view.zoom, row = (y - view.top) / view.zoom;
    if (col < 0 || row < 0 || col >= facts.width || row >= facts.height) { place.textContent = ""; return; }
    const [a, b, c, d, e, f] = facts.transform;
    const pixel = `column ${Math.floor(col)}, row ${Math.floor(row)}`;
    const ground = [a * col + b * row + c, d * col + e * row + f].map((v) => v.toFixed(facts.decimals));
    place.textContent = facts.placed ? `${ground.join(", ")} (${facts.crs}) \u00b7 ${pixel}` : pixel;
  }

  // Pointers: one on the handle swipes, one on the picture moves it, two zoom.
  const pointers = new Map();
  let swiping = null;
  const at = (event) => {
    const box = viewer.getBoundingClientRect();
    return { x: event.clientX - box.left - viewer.clientLeft, y: event.clientY - box.top - viewer.clientTop };
  };
  viewer.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    viewer.setPointerCapture(event.pointerId);
    if (handle.contains(event.target)) { swiping = event.pointerId; handle.focus({ preventScroll: true }); }
    else { pointers.set(event.pointerId, at(event)); viewer.classList.add("moving"); }
  });
  viewer.addEventListener("pointermove", (event) => {
    const now = at(event);
    tell(now.x, now.y);
    if (event.pointerId === swiping) { swipeTo(now.x / size().width); return; }
    const before = pointers.get(event.pointerId);
    if (!before) return;
    pointers.set(event.pointerId, now);
    const other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
    if (other) {
      const apart = (one) => Math.max(20, Math.hypot(one.x - other.x, one.y - other.y));
      zoomTo(view.zoom * apart(now) / apart(before), (now.x + other.x) / 2, (now.y + other.y) / 2);
    }
    move((now.x - before.x) / (other ? 2 : 1), (now.y - before.y) / (other ? 2 : 1));
  });
  const release = (event) => {
    pointers.delete(event.pointerId);
    if (event.pointerId === swiping) swiping = null;
    if (!pointers.size) viewer.classList.remove("moving");
  };
  viewer.addEventListener("pointerup", release);
  viewer.addEventListener("pointercancel", release);
  viewer.addEventListener("pointerleave", () => { place.textContent = ""; });
  viewer.addEventListener("wheel", (event) => {
    event.preventDefault();
    const { x, y } = at(event);
    zoomTo(view.zoom * 1.0015 ** -clamp(event.deltaY * (event.deltaMode ? 30 : 1), -400, 400), x, y);
  }, { passive: false });
  viewer.addEventListener("dblclick", (event) => {
    if (handle.contains(event.target)) return;
    const { x, y } = at(event);
    zoomTo(view.zoom * 2, x, y);
  });
  viewer.addEventListener("dragstart", (event) => event.preventDefault());

  const show = (id, ...parts) => (on = !by(id).checked) => {
    by(id).checked = on;
    for (const part of parts) by(part).toggleAttribute("hidden", !on);
  };
  const showLattice = show("show-lattice", "lattice", "lattice-key");
  const showHeat = show("show-heat", "heat", "heat-key");
  by("show-lattice").addEventListener("change", (event) => showLattice(event.target.checked));
  by("show-heat").addEventListener("change", (event) => showHeat(event.target.checked));

  handle.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return; // the browser's: its history
    const step = event.shiftKey ? 0.1 : 0.02;
    const wanted = { ArrowLeft: view.swipe - step, ArrowDown: view.swipe - step, ArrowRight: view.swipe + step,
      ArrowUp: view.swipe + step, PageUp: view.swipe + 0.1, PageDown: view.swipe - 0.1, Home: 0, End: 1 }[event.key];
    if (wanted === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    swipeTo(wanted);
  });
  const centre = () => tell(size().width / 2, size().height / 2);
  viewer.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const far = 60;
    const act = { ArrowLeft: () => move(far, 0), ArrowRight: () => move(-far, 0), ArrowUp: () => move(0, far),
      ArrowDown: () => move(0, -far), "+": () => zoomTo(view.zoom * 1.5), "=": () => zoomTo(view.zoom * 1.5),
      "-": () => zoomTo(view.zoom / 1.5), 0: fit, l: () => showLattice(), h: () => facts.heat_box && showHeat() }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
    centre();
  });
  by("closer").addEventListener("click", () => zoomTo(view.zoom * 1.5));
  by("farther").addEventListener("click", () => zoomTo(view.zoom / 1.5));
  by("whole").addEventListener("click", fit);
  by("pixels").addEventListener("click", () => zoomTo(1 / window.devicePixelRatio));
  for (const button of document.querySelectorAll("[data-col]")) {
    button.addEventListener("click", () => {
      goTo(Number(button.dataset.col), Number(button.dataset.row), 1);
      viewer.scrollIntoView({ block: "center" });
      viewer.focus({ preventScroll: true });
    });
  }

  function lines(cols, rows) {
    const across = cols.filter((at) => at > 0 && at < facts.width).map((at) => `M${at} 0V${facts.height}`);
    const down = rows.filter((at) => at > 0 && at < facts.height).map((at) => `M0 ${at}H${facts.width}`);
    return across.concat(down).join("");
  }
  function begin() {
    stage.style.width = `${shown.width}px`;
    stage.style.height = `${shown.height}px`;
    for (const kind of ["starts", "ends", "blocks"]) {
      by(`lattice-${kind}`).setAttribute("d", lines(facts.lines[kind].cols, facts.lines[kind].rows));
    }
    const box = facts.heat_box, unit = facts.shrink;
    if (box) {
      Object.assign(heat.style, { left: `${box.origin / unit}px`, top: `${box.origin / unit}px`,
        width: `${box.cols * box.cell / unit}px`, height: `${box.rows * box.cell / unit}px` });
    } else by("show-heat").closest("label").hidden = true;
    showLattice(false);
    showHeat(false);
    new ResizeObserver(() => (view.fitted ? fit() : hold())).observe(viewer);
    fit();
  }
  begin();
})();
