"""Write docs/certificates/*.json, and the table of them in docs/certificates.md.

    python scripts/make_certificates.py

Measures the embedded models on the sample pictures, on the CPU in float32, as
`auravae eval samples --flips all` does; about a minute on two cores.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from auravae_cli import EvalOptions, evaluate
from auravae_cli.store.certificate import Certificate

REPOSITORY = Path(__file__).parents[1]
PAGE, FOLDER = REPOSITORY / "docs" / "certificates.md", REPOSITORY / "docs" / "certificates"
MODELS = ("linear", "small", "small-1")
COLUMNS = (
    "model",
    "flip",
    "encoder error, mean",
    "worst",
    "border",
    "inside",
    "signs left out",
    "no flip",
    "decoder dB, worst",
    "flip gap dB, mean",
    "worst",
)


def main() -> None:
    certificates = {model: measure(model) for model in MODELS}
    for model, certificate in certificates.items():
        (FOLDER / f"{model}.json").write_bytes(certificate.to_bytes())
        print(f"{model}: {certificate.statement}")
    text = PAGE.read_text(encoding="utf-8")
    rows = [row for model in MODELS for row in table_rows(model, certificates[model].content)]
    lines = [COLUMNS, ["---"] * len(COLUMNS), *rows]
    table = "\n".join(f"| {' | '.join(line)} |".replace("| --- ", "|---") for line in lines)
    marked = r"(<!-- table -->\n).*(<!-- end -->)"
    text = re.sub(marked, rf"\1{table}\n\2", text, flags=re.DOTALL)
    PAGE.write_text(text, encoding="utf-8")


def measure(model: str) -> Certificate:
    """The certificate of a model on the sample pictures."""
    result = evaluate(
        REPOSITORY / "samples",
        [model],
        options=EvalOptions(sweeps=0),
        lpips="none",
        device="cpu",
        dtype="float32",
    )
    assert not result.failures
    return result.certificates[model]


def table_rows(model: str, content: dict[str, Any]) -> list[list[str]]:
    """A row for each flip, as the page shows them."""
    rows = []
    for g, numbers in content["elements"].items():
        errors = [
            numbers[f"encoder_error{kind}"][which]
            for kind, which in (
                ("", "mean"),
                ("", "worst"),
                ("_border", "worst"),
                ("_inside", "worst"),
                ("_without_signs", "mean"),
                ("_without_flip", "mean"),
            )
        ]
        decoder = numbers["decoder_psnr"]["worst"]
        gaps = [numbers["flip_gap"][which] for which in ("mean", "worst")]
        shown = ["0" if error == 0 else f"{error:.1e}" for error in errors]
        rows.append(
            [
                f"`{model}`",
                g,
                *shown,
                "identical" if decoder is None else f"{decoder:.1f}",
                *(f"{round(gap, 4) + 0.0:.4f}" for gap in gaps),
            ]
        )
    return rows


if __name__ == "__main__":
    main()
