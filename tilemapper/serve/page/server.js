// Requests to the server; what it refuses becomes an Error with its line.
"use strict";

export async function ask(path, options = {}) {
  const answer = await fetch(path, options);
  if (answer.status === 204) return null;
  const said = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(said.error ?? `${path}: status ${answer.status}`);
  return said;
}

export function post(path, value) {
  const headers = { "Content-Type": "application/json" };
  return ask(path, { method: "POST", headers, body: JSON.stringify(value) });
}

// Sends a file as the request's body; progress is called with the share that is sent.
export function send(path, file, progress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch does not tell how far it is
    request.open("POST", path);
    request.responseType = "json";
    request.upload.onprogress = (event) => progress(event.loaded / Math.max(event.total, 1));
    request.onerror = () => reject(new Error(`${file.name}: the server took no more of it`));
    request.onload = () => {
      if (request.status === 200) resolve(request.response);
      else reject(new Error(request.response?.error ?? `status ${request.status}`));
    };
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.send(file);
  });
}
