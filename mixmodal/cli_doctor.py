"""The command that looks after a machine, an installation and a run. It imports what it needs when it runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional


@dataclass
class Doctor:
    """Look at the machine, the installation, and a run: whether it is whole, can go on, and learns as it should."""

    folder: Positional[Path | None] = None
    """Folder of a run; the machine and the installation alone unless given."""
    record: str = ""
    """Instead, train the first steps of this recipe and write its reference curve; "all" of all whose data is here."""
    out: Path | None = None
    """Folder for the curve; that of the package unless given."""
    steps: int = 50
    """How many steps the curve has."""
    set: tuple[str, ...] = ()
    """Settings of the recipe as key=value; a curve of the package has none but seed=."""

    def run(self) -> None:
        """Print what was found; end with 1 if something is wrong."""
        if self.record:
            self._record()
            return
        from mixmodal.doctor import installation, machine, of_run

        findings = machine(self.folder or Path(".")) + installation()
        if self.folder is not None:
            findings += of_run(self.folder)
        for finding in findings:
            print(finding)
        if wrong := sum(finding.state == "WRONG" for finding in findings):
            print(f"{wrong} {'thing is' if wrong == 1 else 'things are'} wrong")
            raise SystemExit(1)

    def _record(self) -> None:
        from mixmodal.config import override
        from mixmodal.curves import FOLDER, record
        from mixmodal.recipes import recipe, recipes

        if self.set and not self.out:
            raise ValueError("a curve of other settings is no recipe's own: give --out FOLDER for it")
        names = list(recipes()) if self.record == "all" else [self.record]
        for name in names:
            try:
                path = record(override(recipe(name), self.set), self.out or FOLDER, self.steps)
            except (FileNotFoundError, ImportError, ValueError) as error:
                if self.record != "all":
                    raise
                print(f"{name}: left out, {error}")
            else:
                print(f"the curve is in {path}")
