// The dialog in which a raster of an allowed folder is picked.
"use strict";

import { ask, post } from "/page/server.js";

// opened: called with the raster that was picked.
export function showFolder(by, folders, opened, fail) {
  const dialog = by("folders");
  by("close").onclick = () => dialog.close();

  function entry(text, action) {
    const [line, button] = [document.createElement("li"), document.createElement("button")];
    button.type = "button";
    button.textContent = text;
    button.onclick = () => Promise.resolve(action()).catch(fail);
    line.append(button);
    return line;
  }

  // The button that was pressed goes with the old list: the keyboard goes on in the new one.
  function list(lines) {
    by("entries").replaceChildren(...lines);
    (by("entries").querySelector("button") ?? by("close")).focus();
  }

  function showRoots() {
    by("folder-name").textContent = "Folders";
    list(folders.map((name, folder) => entry(`📁 ${name}`, () => show(folder, ""))));
  }

  async function show(folder, path) {
    const found = await ask(`/api/folders/${folder}?path=${encodeURIComponent(path)}`);
    const below = (name) => (path ? `${path}/${name}` : name);
    by("folder-name").textContent = [folders[folder], path].filter(Boolean).join("/");
    const up = path ? () => show(folder, path.split("/").slice(0, -1).join("/")) : showRoots;
    const lines = [];
    if (path || folders.length > 1) lines.push(entry("↑ up", up));
    lines.push(...found.folders.map((name) => entry(`📁 ${name}`, () => show(folder, below(name)))));
    lines.push(...found.rasters.map((name) => entry(name, async () => {
      const scene = await post("/api/scenes", { folder, path: below(name) });
      dialog.close();
      await opened(scene);
    })));
    if (found.more) lines.push(entry("… and more that are not listed", () => {}));
    list(lines);
  }

  dialog.showModal();
  if (folders.length === 1) show(0, "").catch(fail);
  else showRoots();
}
