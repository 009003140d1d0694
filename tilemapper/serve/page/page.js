// The page: what is chosen, what is shown, what goes up and what comes down.
"use strict";

import { listenToDrops, listenToSwipe } from "/page/gestures.js";
import { Layer } from "/page/layer.js";
import { Viewer } from "/page/viewer.js";
import { ask, send } from "/page/server.js";
import { Downloads } from "/page/downloads.js";
import { showFolder } from "/page/folders.js";

const by = (id) => document.getElementById(id);
const BEYOND = 4; // zoom levels beyond the native one, where pixels are only enlarged
let config = null;
let scene = null;
let map = null; // what the server says of this scene's map by this model

const viewer = new Viewer(by("map"), { moved: onMoved });
const downloads = new Downloads(by, say, showMap);

function say(text, alarm = false) {
  by("status").textContent = text;
  by("status").classList.toggle("alarm", alarm);
}

function fail(error) {
  say(error.message ?? String(error), true);
}

async function start() {
  config = await ask("/api/config");
  for (const model of config.models) {
    const turned = model.direction === "BtoA" ? " (map → satellite)" : "";
    by("model").add(new Option(model.name + turned, model.name));
  }
  by("pick").hidden = config.folders.length === 0;
  for (const found of config.scenes) addScene(found);
  by("empty").hidden = config.scenes.length > 0;
  if (config.scenes.length) await choose(config.scenes[0]);
  else say("");
}

function addScene(found) {
  config.scenes = [...config.scenes.filter((other) => other.id !== found.id), found];
  const option = [...by("raster").options].find((other) => other.value === found.id);
  if (!option) by("raster").add(new Option(found.name, found.id));
}

async function choose(found) {
  scene = found;
  by("raster").value = found.id;
  by("empty").hidden = true;
  by("place").textContent = "";
  delete document.body.dataset.shown;
  viewer.source?.close();
  viewer.map?.close();
  viewer.map = map = null;
  viewer.source = makeLayer("source", { least: 0, most: found.native_zoom, crisp: false });
  viewer.show(found.bounds, found.max_zoom);
  const size = `${found.name}: ${found.width} x ${found.height} px`;
  const ground = found.gsd_m ? `, ${found.gsd_m.toPrecision(3)} m a pixel, ${found.crs}` : ", no georeferencing";
  by("about").textContent = size + ground;
  await showMap();
}

function makeLayer(name, limits) {
  const root = `/xyz/${encodeURIComponent(scene.id)}/${encodeURIComponent(name)}`;
  const failed = (message) => say(message, true);
  // Beyond the date line the world begins anew.
  const url = (z, x, y) => `${root}/${z}/${x % 2 ** z}/${y}.png?partial=1`;
  return new Layer(url, limits, () => viewer.draw(), failed);
}

// Shows the chosen model's map of the chosen scene; called again when a whole map is finished.
async function showMap() {
  if (!scene) return;
  const [wantedScene, model] = [scene, by("model").value];
  // What comes when another raster or model has been chosen meanwhile is nothing to show.
  const isStale = () => wantedScene !== scene || model !== by("model").value;
  say("");
  let found = null;
  try {
    found = await ask(`/api/scenes/${encodeURIComponent(scene.id)}/maps/${encodeURIComponent(model)}`);
  } catch (error) {
    if (isStale()) return;
    viewer.map?.close();
    viewer.map = map = null;
    viewer.draw();
    downloads.show(null, null, null);
    throw error;
  }
  if (isStale()) return;
  map = found;
  viewer.map?.close();
  viewer.map = makeLayer(model, { least: map.live_zoom, most: map.native_zoom, crisp: true });
  viewer.deepest = Math.max(scene.native_zoom, map.native_zoom) + BEYOND;
  viewer.draw();
  downloads.show(scene, model, map.job);
  const placed = scene.scheme === "mercator";
  by("placed").hidden = !placed;
  by("unplaced").hidden = placed;
  by("xyz").textContent = `${location.origin}/xyz/${scene.id}/${model}/{z}/{x}/{y}.png`;
  const { classes, direction } = config.models.find((other) => other.name === model);
  showLegend(classes);
  const names = ["Satellite", "Map"];
  if (direction === "BtoA") names.reverse();
  [by("left-tag").textContent, by("right-tag").textContent] = names;
  document.body.dataset.shown = `${scene.id} ${model}`; // for the tests of this page
  const notices = [...new Set([...scene.notices, ...map.notices])];
  if (notices.length) say(notices.join("; "));
}

function showLegend(classes) {
  by("legend").replaceChildren(...classes.map(([name, colour]) => {
    const swatch = document.createElement("canvas");
    [swatch.width, swatch.height] = [1, 1];
    const context = swatch.getContext("2d");
    context.fillStyle = `rgb(${colour.join(" ")})`;
    context.fillRect(0, 0, 1, 1);
    const line = document.createElement("li");
    line.append(swatch, name);
    return line;
  }));
}

function onMoved() {
  by("zoom").textContent = scene ? `zoom ${viewer.zoom.toFixed(1)}` : "";
  const pending = (viewer.source?.pending ?? 0) + (viewer.map?.pending ?? 0);
  document.body.dataset.pending = pending;
  by("note").hidden = !map || !viewer.map || viewer.showsMap();
  placeHandle();
}

function placeHandle() {
  const side = viewer.mode === "side";
  by("handle").hidden = side || !scene;
  by("left-tag").hidden = by("right-tag").hidden = !scene;
  by("handle").style.left = `${100 * viewer.swipe}%`;
  by("handle").setAttribute("aria-valuenow", Math.round(100 * viewer.swipe));
}

function setSwipe(share) {
  viewer.swipe = Math.min(Math.max(share, 0), 1);
  viewer.draw();
}

function setMode(mode) {
  viewer.mode = mode;
  for (const name of ["swipe", "side"]) by(name).setAttribute("aria-pressed", name === mode);
  viewer.draw();
}

async function upload(file) {
  if (file.size > config.upload_bytes) {
    const most = Math.round(config.upload_bytes / 2 ** 20);
    say(`${file.name} has more than ${most} MiB; give large rasters to tilemapper serve`, true);
    return;
  }
  const shown = (share) => say(`Sending ${file.name}: ${Math.round(100 * share)} %`);
  const found = await send(`/api/uploads?name=${encodeURIComponent(file.name)}`, file, shown);
  addScene(found);
  await choose(found);
}

function placeText(event) {
  const [x, y] = viewer.placeAt(event.offsetX, event.offsetY);
  if (scene.scheme === "mercator") {
    const north = Math.atan(Math.sinh(Math.PI * (1 - 2 * y))) * 180 / Math.PI;
    return `${north.toFixed(5)}°, ${(360 * (x - Math.floor(x)) - 180).toFixed(5)}°`;
  }
  const [, , right, bottom] = scene.bounds;
  return `column ${Math.floor(x / right * scene.width)}, row ${Math.floor(y / bottom * scene.height)}`;
}

function listen() {
  const middle = () => [viewer.paneWidth / 2, viewer.height / 2];
  const click = (id, action) => by(id).addEventListener("click", () => {
    Promise.resolve(action()).catch(fail);
  });
  click("in", () => viewer.zoomAt(...middle(), 1));
  click("out", () => viewer.zoomAt(...middle(), -1));
  click("fit", () => viewer.fit());
  click("native", () => {
    const zoom = (map ?? scene)?.native_zoom - Math.log2(window.devicePixelRatio || 1);
    if (scene) viewer.go(viewer.x, viewer.y, zoom);
  });
  click("note-zoom", () => {
    viewer.go(viewer.x, viewer.y, map.live_zoom);
    by("map").focus(); // the note goes, and its button
  });
  click("swipe", () => setMode("swipe"));
  click("side", () => setMode("side"));
  click("choose", () => by("file").click());
  click("pick", () => showFolder(by, config.folders, async (found) => {
    addScene(found);
    await choose(found);
  }, fail));
  click("copy", () => navigator.clipboard.writeText(by("xyz").textContent));
  click("more", () => {
    by("details").hidden = !by("details").hidden;
    by("more").setAttribute("aria-expanded", String(!by("details").hidden));
  });
  by("file").addEventListener("change", () => {
    const [file] = by("file").files;
    by("file").value = "";
    if (file) upload(file).catch(fail);
  });
  by("raster").addEventListener("change", () => {
    choose(config.scenes.find((found) => found.id === by("raster").value)).catch(fail);
  });
  by("model").addEventListener("change", () => showMap().catch(fail));
  by("map").addEventListener("pointermove", (event) => {
    if (scene) by("place").textContent = placeText(event);
  });
}

listen();
listenToSwipe(by("handle"), by("stage"), () => viewer.swipe, setSwipe);
listenToDrops(by("drop"), (file) => upload(file).catch(fail));
start().catch(fail);
