"""What every page that radtransfer writes must be: whole, and in need of nothing else."""

from html.parser import HTMLParser

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """The tags of a page, closed in order; its images, links and text."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.images, self.anchors, self.ids, self.tags = [], [], [], [], set()
        self.words, self.mistakes = [], []
        self.feed(text)
        self.close()
        self.mistakes += [f"<{tag}> is not closed" for tag in self.open]

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.add(tag)
        if len(values) < len(attributes):
            self.mistakes.append(f"<{tag}> has an attribute twice")
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(values)
        if "href" in values:
            self.anchors.append(values["href"])
        if "id" in values:
            self.ids.append(values["id"])
        self.mistakes += [f"{name} on <{tag}>" for name in values if name.startswith("on")]

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.mistakes.append(f"</{tag}> closes something else")

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def check_page(text):
    """The page, after seeing that it is well-formed, needs nothing from outside and names its images."""
    page = Page(text)
    assert page.mistakes == []
    assert not page.tags & {"script", "link", "iframe", "object", "embed", "base", "form"}
    assert "http://" not in text and "https://" not in text and "url(" not in text and "@import" not in text
    assert all(image["src"].startswith("data:image/") for image in page.images)
    assert all(len(image["alt"]) > 10 for image in page.images)
    assert len(page.ids) == len(set(page.ids))
    assert {anchor.removeprefix("#") for anchor in page.anchors} <= set(page.ids)
    return page
