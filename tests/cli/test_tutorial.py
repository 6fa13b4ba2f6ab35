"""docs/tutorial.md, line by line, in this process and with the model that is instant."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

from PIL import Image

PAGE = (Path(__file__).parents[2] / "docs" / "tutorial.md").read_text(encoding="utf-8")


def test_every_command_does_what_the_page_says(auravae, work, samples, repository, capsys):
    Path("photos").mkdir()
    for name in ("coffee.jpg", "rocket.webp"):
        with Image.open(samples / name) as image:
            small = image.convert("RGB").crop((100, 60, 196, 140))
        small.save(f"photos/{Path(name).stem}.jpg", quality=95)
    shutil.copy(repository / "auravae_cli" / "weights" / "linear.safetensors", "other.safetensors")
    ran = 0
    for language, text in re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        if language == "python":
            exec(compile(text, "docs/tutorial.md", "exec"), {})
            continue
        for line in text.splitlines():
            program, *words = shlex.split(line.replace("-m small", "-m other.safetensors"))
            if program == "cmp":
                assert Path(words[0]).read_bytes() == Path(words[1]).read_bytes()
                continue
            result = auravae(*words)
            assert (program, result.code) == ("auravae", 0), (line, result.err)
            ran += 1
    assert ran == 17
    assert capsys.readouterr().out.count("torch.Size([2, 16,") == 1
    assert Path("compared.sheet.png").exists() and Path("page.html").exists()
