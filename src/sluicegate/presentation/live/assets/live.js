// The page: who may watch, what comes, and what is drawn of it.
import { Feed } from "./feed.js";
import { showFigures } from "./figures.js";
import { addToCharts } from "./history.js";
import { setUpActions } from "./actions.js";

const root = document.documentElement;
const byId = (id) => document.getElementById(id);
const KEY = "sluicegate-token";

const feed = new Feed({
  token: root.dataset.needsToken === "yes" ? sessionStorage.getItem(KEY) ?? "" : null,
  onFigures(figures) {
    byId("sign-in").hidden = true;
    byId("live").hidden = false;
    byId("forget-row").hidden = feed.token === null;
    showFigures(figures, actions);
    addToCharts(figures);
  },
  onStatus(text) {
    if (byId("status").textContent !== text) byId("status").textContent = text;
  },
  onTokenWanted() {
    byId("live").hidden = true;
    byId("forget-row").hidden = true;
    byId("sign-in").hidden = false;
    byId("token").focus();
  },
});
const actions = setUpActions(feed);

byId("sign-in-form").addEventListener("submit", (event) => {
  event.preventDefault();
  feed.token = byId("token").value.trim();
  byId("token").value = "";
  sessionStorage.setItem(KEY, feed.token);
  feed.start();
});
byId("forget").addEventListener("click", () => {
  sessionStorage.removeItem(KEY);
  feed.token = "";
  feed.start();
});
// A page that nobody sees does not watch.
document.addEventListener("visibilitychange", () => (document.hidden ? feed.stop() : feed.start()));
feed.start();
