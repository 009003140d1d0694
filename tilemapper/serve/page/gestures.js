// Dragging: the border between both pictures, and files onto the page.
"use strict";

// The handle between both pictures: now() is the share of the width left of it, set changes it.
export function listenToSwipe(handle, stage, now, set) {
  const follow = (event) => {
    const box = stage.getBoundingClientRect();
    set((event.clientX - box.left) / box.width);
  };
  handle.addEventListener("pointerdown", (event) => handle.setPointerCapture(event.pointerId));
  handle.addEventListener("pointermove", (event) => {
    if (handle.hasPointerCapture(event.pointerId)) follow(event);
  });
  handle.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return; // the browser's: its history
    const moves = { ArrowLeft: -0.02, ArrowRight: 0.02, PageDown: -0.2, PageUp: 0.2 };
    const ends = { Home: 0, End: 1 };
    if (event.key in moves) set(now() + moves[event.key]);
    else if (event.key in ends) set(ends[event.key]);
    else return;
    event.preventDefault();
  });
}

// Files dropped anywhere on the page; veil is shown while one hangs over it.
export function listenToDrops(veil, dropped) {
  let depth = 0;
  const show = (change) => {
    depth = Math.max(0, depth + change);
    veil.hidden = depth === 0;
  };
  const isFile = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragenter", (event) => isFile(event) && show(1));
  document.addEventListener("dragleave", (event) => isFile(event) && show(-1));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    show(-depth);
    const [file] = event.dataTransfer.files;
    if (file) dropped(file);
  });
}
