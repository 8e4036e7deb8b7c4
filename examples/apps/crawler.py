"""A crawler that reads a site no faster than it may: five pages a second, and as the site's answers tell.

Run: `python examples/apps/crawler.py http://127.0.0.1:8000/ 100`. It follows the links of the site, up to a number of pages,
and prints each page's status and path. Where the site refuses (429, 503) it waits as long as the site says and asks again; with
RedisStorage several crawlers keep to one rate, and a pause that one of them is told holds for all.
"""

import asyncio
import sys
from html.parser import HTMLParser

import httpx

from sluicegate import MemoryStorage, RateLimitTransport, TokenBucketAdapter

WORKERS = 4


class Links(HTMLParser):
    """Collects where a page links to."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the target of a link."""
        self.targets += [value for name, value in attrs if tag == "a" and name == "href" and value]


def links_of(page: httpx.Response) -> set[httpx.URL]:
    """Return the pages of the same site that a page links to, without fragments."""
    if "html" not in page.headers.get("content-type", ""):
        return set()
    links = Links()
    links.feed(page.text)
    found: set[httpx.URL] = set()
    for target in links.targets:
        try:
            url = page.url.join(target).copy_with(fragment=None)
        except httpx.InvalidURL:
            continue
        if (url.scheme, url.netloc) == (page.url.scheme, page.url.netloc):
            found.add(url)
    return found


async def crawl(start: httpx.URL, most_pages: int) -> None:
    """Read a site, breadth first."""
    limiter = TokenBucketAdapter(storage=MemoryStorage(), rules={})
    transport = RateLimitTransport("5/second burst 1", limiter=limiter)
    known, queue = {start}, asyncio.Queue[httpx.URL]()
    queue.put_nowait(start)

    async def work(client: httpx.AsyncClient) -> None:
        while True:
            url = await queue.get()
            try:
                page = await client.get(url)
            except httpx.HTTPError as error:  # no turn in time is one of them
                print(type(error).__name__, url.path)
            else:
                print(page.status_code, url.path)
                for link in sorted(links_of(page) - known, key=str):
                    if len(known) < most_pages:
                        known.add(link)
                        queue.put_nowait(link)
            queue.task_done()

    async with httpx.AsyncClient(transport=transport, trust_env=False) as client, asyncio.TaskGroup() as workers:
        tasks = [workers.create_task(work(client)) for _ in range(WORKERS)]
        await queue.join()
        for task in tasks:
            task.cancel()
    await limiter.aclose()


if __name__ == "__main__":
    asyncio.run(crawl(httpx.URL(sys.argv[1]), int(sys.argv[2])))
