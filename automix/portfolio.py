"""Files of the schedules that ship; `Schedule.portfolio` reads them."""

from collections.abc import Mapping
from importlib import resources

_FOLDER = "schedules"


def portfolio_texts() -> Mapping[str, str]:
    """Return the text of each schedule that ships by its name, the best first.

    They were chosen by their outcomes on the development tasks: `docs/portfolio.md`.
    """
    folder = resources.files("automix") / _FOLDER
    files = [file for file in folder.iterdir() if file.name.endswith(".json")]
    return {
        # Named NUMBER-NAME.json, where the number is the place in the portfolio.
        file.name.removesuffix(".json").partition("-")[2]: file.read_text(encoding="utf-8")
        for file in sorted(files, key=lambda file: file.name)
    }
