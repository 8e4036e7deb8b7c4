// The connection to the service: a stream of events, read with fetch because EventSource can send no token.
const PAUSES_MS = [1000, 2000, 5000, 10000];
const SILENCE_MS = 15000; // a second is usual, but a process may be slow to answer

const wait = (ms, signal) => new Promise((resolve) => {
  const timer = setTimeout(resolve, ms);
  signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
});

export class Feed {
  constructor({ token, onFigures, onStatus, onTokenWanted }) {
    Object.assign(this, { token, onFigures, onStatus, onTokenWanted });
    this.abort = null;
  }

  start() {
    this.stop();
    if (this.token === "") {
      this.onStatus("This page needs the admin token.");
      this.onTokenWanted();
      return;
    }
    this.abort = new AbortController();
    this.run(this.abort.signal);
  }

  stop() {
    this.abort?.abort();
    this.abort = null;
  }

  // Make a call and return { status, body }; the body is decoded JSON, or null.
  async call(path, body) {
    const response = await fetch(path, {
      method: "POST",
      headers: { "content-type": "application/json", ...this.headers() },
      body: JSON.stringify(body),
    });
    const answer = await response.json().catch(() => null);
    return { status: response.status, body: answer };
  }

  headers() {
    return this.token === null ? {} : { authorization: `Bearer ${this.token}` };
  }

  async run(signal) {
    let failures = 0;
    while (!signal.aborted) {
      let problem = "";
      try {
        const response = await fetch("v1/live/stream", { headers: this.headers(), cache: "no-store", signal });
        if (response.ok) {
          const came = await this.read(response, signal);
          if (came) failures = 0;
          if (came && !signal.aborted) continue; // a stream ends after a while, and another one begins
          problem = "nothing came";
        } else if (response.status === 401 && this.token !== null) {
          this.token = "";
          this.onStatus("The token is wrong.");
          this.onTokenWanted();
          return;
        } else if (response.status === 503) {
          problem = (await response.json().catch(() => null))?.detail ?? "the service is busy";
        } else {
          problem = `status ${response.status}`;
        }
      } catch (error) {
        problem = error.name === "AbortError" ? "it has gone silent" : "no connection";
      }
      if (signal.aborted) return;
      this.onStatus(`Not live: ${problem}. What is shown is old. Trying again.`);
      await wait(PAUSES_MS[Math.min(failures, PAUSES_MS.length - 1)], signal);
      failures += 1;
    }
  }

  // Read the events of one stream, and return whether there was any.
  async read(response, signal) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "", came = false, timer = 0;
    const watch = () => {
      clearTimeout(timer);
      timer = setTimeout(() => reader.cancel().catch(() => {}), SILENCE_MS);
    };
    const cancel = () => reader.cancel().catch(() => {});
    signal.addEventListener("abort", cancel, { once: true });
    try {
      for (;;) {
        watch();
        const { value, done } = await reader.read();
        if (done) return came;
        text += value;
        for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
          const lines = text.slice(0, end).split("\n");
          text = text.slice(end + 2);
          const data = lines.filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("\n");
          if (!lines.includes("event: live") || signal.aborted) continue;
          came = true;
          this.onStatus("Live: the numbers are those of the latest second.");
          this.onFigures(JSON.parse(data));
        }
      }
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", cancel);
    }
  }
}
