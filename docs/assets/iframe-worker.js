/* Search in pages that are opened from a folder. Browsers start no worker there, and the theme asks
   for a stand-in by this file's name: a hidden frame runs the worker's script, and messages go to and
   fro. Over HTTP nothing is changed. */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      url = new URL(url, document.baseURI);
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      this.frame.title = "search";
      document.body.append(this.frame);
      const inside = this.frame.contentWindow, page = inside.document;
      inside.postMessage = (data) => setTimeout(() => {
        const message = new MessageEvent("message", { data });
        this.dispatchEvent(message);
        this.onmessage?.(message);
      });
      this.ready = new Promise((resolve) => {
        const load = (script) => new Promise((done, failed) => {
          const tag = page.createElement("script");
          tag.src = new URL(script, url);
          tag.onload = done;
          tag.onerror = failed;
          page.head.append(tag);
        });
        inside.importScripts = (...scripts) => scripts.reduce((all, script) => all.then(() => load(script)), Promise.resolve());
        load(url).then(resolve);
      });
    }
    postMessage(data) {
      const inside = this.frame.contentWindow;
      this.ready.then(() => inside.dispatchEvent(new inside.MessageEvent("message", { data })));
    }
    terminate() { this.frame.remove(); }
  };
}
