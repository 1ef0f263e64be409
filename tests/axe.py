"""Check a page with axe-core, which the package axe-playwright-python ships."""

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page


def violations(page: Page) -> list[str]:
    """Return what axe finds wrong with a page: the rule, its advice, and the elements."""
    found = Axe().run(page).response["violations"]
    return [
        f"{each['id']}: {each['help']}: " + ", ".join(str(node["target"]) for node in each["nodes"]) for each in found
    ]
