"""The page at /docs: runs its own script and no other, and asks nobody else."""

import base64
import hashlib
import json
import re
import shutil
import subprocess

import pytest
from fastapi import FastAPI

from serving.docs_page import PAGE, install, page_policy

TEXT = PAGE.read_text(encoding="utf-8")
# Enough of a browser for the page: elements with text and children, and a fetch that gives the description.
BROWSER = """
const said = [];
class Element {
  constructor(tag) { this.tag = tag; this.children = []; this.hidden = true; this.value = ""; }
  append(...inner) { this.children.push(...inner); }
  prepend(...inner) { this.children.unshift(...inner); }
  addEventListener(kind, act) { this.act = act; }
  set textContent(text) { this.text = text; }
  words() {
    return [this.text || "", ...this.children.map((each) => each.words ? each.words() : each)].join(" ");
  }
}
const places = {};
globalThis.document = {
  createElement: (tag) => new Element(tag),
  getElementById: (id) => (places[id] = places[id] || new Element(id)),
};
globalThis.fetch = async (address, options) => {
  said.push([address, options.headers]);
  const locked = given.key && options.headers.authorization !== "Bearer " + given.key;
  return { ok: !locked, status: locked ? 401 : 200, json: async () => given.page };
};
"""
ASK = """
setTimeout(() => {
  const before = { asks: !places.key.hidden, words: places.routes ? places.routes.words() : "" };
  places.secret = Object.assign(new Element("input"), { value: "sesame" });
  if (given.key) places.key.act({ preventDefault() {} });
  setTimeout(() => console.log(JSON.stringify({ before, words: places.routes.words(), said })), 20);
}, 20);
"""


def shown(page, key=""):
    """What the page's script shows of a description, run by node."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed: the page's script is not run")
    script = re.search(r"<script>(.*?)</script>", TEXT, flags=re.DOTALL)[1]
    given = f"const given = {json.dumps({'page': page, 'key': key})};"
    ran = subprocess.run(
        [node, "-e", given + BROWSER + script.replace('"use strict";', "") + ASK],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_the_page_names_no_foreign_address_and_runs_nothing_from_one():
    assert re.findall(r"https?:|//[a-z]+\\.", TEXT) == []
    assert re.findall(r"\son\w+=|innerHTML|eval\(|document\.write|style=", TEXT) == []
    policy = page_policy(TEXT)
    script = re.search(r"<script>(.*?)</script>", TEXT, flags=re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy
    assert "default-src 'none';" in policy
    assert "connect-src 'self';" in policy
    assert "unsafe" not in policy


def test_a_script_that_slips_in_is_not_in_the_policy_of_the_page():
    assert page_policy(TEXT) != page_policy(TEXT.replace('"use strict";', '"use strict"; steal();'))


def test_every_operation_is_shown_with_an_example_its_fields_and_its_answers(client):
    page = client.get("/openapi.json").json()
    words = shown(page)["words"]
    for path, methods in page["paths"].items():
        for method, operation in methods.items():
            assert re.search(rf"{method.upper()}\s+{re.escape(path)}\s", words)
            assert operation["summary"] in words
    assert '"deal_id": "D-1001"' in words
    for feature in page["components"]["schemas"]["Features"]["properties"]:
        assert feature in words
    assert "uplift_interval_points" in words


def test_a_locked_server_is_asked_again_with_the_key_that_is_typed():
    page = {"info": {}, "paths": {"/v1/x": {"get": {"summary": "What is x?", "responses": {}}}}}
    seen = shown(page, key="sesame")
    assert seen["before"] == {"asks": True, "words": ""}
    assert "What is x?" in seen["words"]
    assert seen["said"] == [["/openapi.json", {}], ["/openapi.json", {"authorization": "Bearer sesame"}]]


def test_the_page_is_not_part_of_the_description():
    app = FastAPI(docs_url=None, redoc_url=None)
    install(app)
    assert app.openapi()["paths"] == {}
