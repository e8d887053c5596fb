"""Headless Chromium, with WebGL in software."""

import functools
import shutil

import pytest

ARGUMENTS = (
    "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-sync",
    "--no-first-run", "--disable-background-networking", "--disable-component-update",
)  # fmt: skip


@functools.cache
def browser():
    """Chromium; the test is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("needs Chromium")
    return (
        playwright.sync_playwright()
        .start()
        .chromium.launch(executable_path=path, args=list(ARGUMENTS))
    )
