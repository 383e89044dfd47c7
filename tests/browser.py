"""Opening a page in a real browser, headless."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver

PHONE = {"width": 360, "height": 780, "deviceScaleFactor": 2, "mobile": True}
CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="Chromium and its driver are not installed: apt install chromium chromium-driver",
)


def opened(path: Path, metrics: Mapping[str, Any] = PHONE) -> dict[str, Any]:
    """Open a page in headless Chromium, and return what there is to know of it: errors, pictures, widths in pixels."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in FLAGS:
        options.add_argument(flag)
    with webdriver.Chrome(options, webdriver.ChromeService(DRIVER)) as browser:
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", dict(metrics))
        browser.get(path.as_uri())
        found = browser.execute_script(
            """
            const images = [...document.images];
            const text = [...document.querySelectorAll('p, td, th, li, h1, h2, h3')];
            return {
              title: document.title,
              images: images.length,
              broken: images.filter(i => !(i.complete && i.naturalWidth > 0)).map(i => i.alt),
              overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
              viewport: window.innerWidth,
              widest: Math.max(...images.map(i => i.getBoundingClientRect().right)),
              smallest: Math.min(...text.map(e => parseFloat(getComputedStyle(e).fontSize))),
              sections: document.querySelectorAll('section').length,
              loaded: performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith('data:')),
            };
            """
        )
        return found | {"log": browser.get_log("browser")}
