"""What a person sees in the MLflow UI after `make demo`: checked in a browser, with the pictures of docs/mlflow.md.

    python -m benchmarks.ui_pictures [--json] [--dataset NAME] [--out FOLDER]

It needs Chromium and its driver (`apt install chromium chromium-driver`). It starts the UI on a free port, opens the
runs, the comparison by its link, the champion's run and the champion's version, and looks for what should be there.
Something that is missing ends it with exit code 1.
"""

import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run
from PIL import Image
from selenium import webdriver

from benchmarks import Parser, Result, report, run
from imputune.errors import UserError
from imputune.pipeline.project import Project
from imputune.registry.names import classifier_name
from imputune.registry.versions import Registry
from imputune.runtime.console import print_table
from imputune.settings.file import find_root
from imputune.tracking.comparison_view import stored_links

WITHIN = 90  # seconds, for a page or the server
SETTLES = 4  # seconds until charts are drawn
COLOURS = 128  # of a picture, so that its file is small
GROUPS = ("train", "validation", "test", "imputation")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--no-first-run", "--disable-sync", "--disable-background-networking"),
    *("--disable-component-update", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    "--force-device-scale-factor=1",
)
CLOSE_ASSISTANT = """
const button = [...document.querySelectorAll('button')].find(
  b => b.innerText === '' && b.getBoundingClientRect().x > innerWidth - 70 && b.getBoundingClientRect().y < 60);
if (button) button.click();
"""
CLICK = "[...document.querySelectorAll('*')].filter(e => e.innerText === arguments[0]).at(-1)?.click()"


class Seen(Result):
    """What was looked for, and whether it was there."""

    found: dict[str, bool]
    pictures: tuple[str, ...]


class Pages:
    """Pages of the UI in one browser window."""

    def __init__(self, browser: webdriver.Chrome, address: str) -> None:
        self.browser, self.address = browser, address

    def open(self, path: str, wanted: str, width: int = 1500, height: int = 900) -> str:
        """Open a page, wait for a text on it, and return all its text; UserError if the text does not come."""
        self.browser.set_window_size(width, height)
        self.browser.get("about:blank")  # a page that differs behind # alone would not be loaded anew
        self.browser.get(f"{self.address}/{path}")
        until = time.monotonic() + WITHIN
        while wanted not in self.text():
            if time.monotonic() > until:
                raise UserError(f"{path} does not show {wanted!r} within {WITHIN} s; it has: {self.text()[:300]!r}")
            time.sleep(0.5)
        self.do(CLOSE_ASSISTANT if "Ask questions about" in self.text() else "")
        return self.text()

    def do(self, script: str, *arguments: str) -> None:
        """Run JavaScript, and wait until the page has settled."""
        self.browser.execute_script(script, *arguments)
        time.sleep(SETTLES)

    def text(self) -> str:
        """Return the page's text."""
        return str(self.browser.execute_script("return document.body.innerText"))

    def save(self, path: Path) -> str:
        """Save the window as a small picture."""
        picture = Image.open(io.BytesIO(self.browser.get_screenshot_as_png())).convert("RGB")
        picture.quantize(COLOURS).save(path, optimize=True)
        return path.name


def main() -> None:
    """Run the command line; raises UserError for bad input."""
    parser = Parser("benchmarks.ui_pictures", "What a person sees in the MLflow UI.")
    parser.add_argument("--dataset", default=None, help="dataset of the runs; without it, that of params.yaml")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of the pictures")
    arguments = parser.parse_args()
    chromium, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if not chromium or not driver:
        raise UserError("Chromium or its driver is missing: apt install chromium chromium-driver")
    project = Project.open(find_root(Path.cwd()), arguments.dataset)
    registry = Registry(project.root, classifier_name(project.dataset))
    champion = registry.find("champion")
    client = MlflowClient(registry.uri)
    of_champion = client.get_run(champion.run_id)
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in FLAGS:
        options.add_argument(flag)
    with shown(registry.uri) as address, webdriver.Chrome(options, webdriver.ChromeService(driver)) as browser:
        pages = Pages(browser, address)
        [link, *_] = [each for each in stored_links(project.root, address) if "-heads" in each]
        seen = look(pages, arguments.out, of_champion, link.removeprefix(f"{address}/"))
        text = pages.open(f"#/models/{registry.name}/versions/{champion.number}", "Scores", 1500, 1400)
        seen["the version has a model card"] = all(word in text for word in ("AUC", "Calibration", "Subgroups"))
        pages.save(arguments.out / "mlflow-card.png")
    pictures = tuple(sorted(path.name for path in arguments.out.glob("mlflow-*.png")))
    report(Seen(found=seen, pictures=pictures), _show, arguments.json)
    if not all(seen.values()):
        sys.exit(1)


def look(pages: Pages, folder: Path, champion: Run, comparison: str) -> dict[str, bool]:
    """Open the pages of runs, take their pictures, and return what was found."""
    seen: dict[str, bool] = {}
    experiment, name = champion.info.experiment_id, str(champion.info.run_name)
    pages.open("#/experiments", "Model training")
    pages.do(CLICK, "Model training")  # hides what is for language models; the browser remembers it
    text = pages.open(comparison, "Parallel", 1600, 1150)
    pages.save(folder / "mlflow-heads.png")
    seen["the link opens the variants in charts"] = name in text and "test/auc" in text
    table = comparison.replace("=CHART", "=TABLE")
    pages.open(table, "Dataset", 1600, 800)
    pages.save(folder / "mlflow-runs.png")
    lines = pages.text().splitlines()
    runs = [line for line in lines if " · " in line and "finetune" not in line]
    seen["runs have different names"] = len(runs) > 1 and len(set(runs)) == len(runs)
    datasets = [line for line in lines if line.startswith(f"{champion.data.params['dataset']} (")]
    seen["every run has a dataset"] = len(datasets) >= len(runs)
    text = pages.open(f"#/experiments/{experiment}/runs?compareRunsMode=CHART", "validation", 1600, 1150)
    for group in GROUPS:
        seen[f"metrics have the group {group}"] = group in text.splitlines()
    text = pages.open(f"#/experiments/{experiment}/runs/{champion.info.run_id}", "Description", 1500, 1000)
    pages.save(folder / "mlflow-run.png")
    seen["the run has a description"] = "imputune finetune" in text or "±" in text
    return seen


@contextmanager
def shown(uri: str) -> Iterator[str]:
    """Run the MLflow UI on a free port; yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "mlflow", "ui", "--workers", "1", "--port", str(port), "--backend-store-uri", uri]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    server = subprocess.Popen(
        words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    address, until = f"http://127.0.0.1:{port}", time.monotonic() + WITHIN
    try:
        while not _answers(address):
            if server.poll() is not None or time.monotonic() > until:
                raise UserError("the MLflow UI did not start")
            time.sleep(0.2)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=2):
            return True
    except OSError:
        return False


def _show(seen: Seen) -> None:
    print_table("In the MLflow UI", ("", ""), [(name, "yes" if there else "NO") for name, there in seen.found.items()])


if __name__ == "__main__":
    run(main)
