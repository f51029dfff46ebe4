"""The page in a real browser: its script runs, and nothing is complained of."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from automix.reporting.report import write_report
from tests.reporting.parsing import parse
from tests.reporting.test_report import a_report


@pytest.mark.slow
def test_the_page_opens_without_a_message(tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    page = write_report(a_report(), tmp_path)
    flags = (
        "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --enable-logging=stderr --dump-dom"
    )
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    result = subprocess.run(
        [browser, *flags.split(), profile, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "CONSOLE" not in result.stderr
    document = parse(re.sub(r"<!DOCTYPE html>", "", result.stdout))
    buttons = [
        attributes for _, attributes in document.elements if "theme" in str(attributes.get("class"))
    ]
    # The script takes the attribute away: it has run, under the page's own policy.
    assert "hidden" not in buttons[0]
    assert "theme" in document.text
