"""eval: numbers, files, resuming, and what it refuses."""

from __future__ import annotations

import csv
import json
import shutil
import tarfile
from pathlib import Path

import pytest

from auravae_cli.cli.terminal import live
from auravae_cli.evaluation import run

FAST = ("--flips", "2", "--sweeps", "1")
NO_LPIPS = "note: no LPIPS: its weights are not here; pip install lpips"


@pytest.fixture
def photos(work, picture):
    """A folder of four pictures, two of them of odd sizes."""
    for number, size in enumerate([(40, 56), (43, 61), (24, 24), (171, 165)]):
        picture(f"photos/{number}.png", *size, shift=9 * number)
    return Path("photos")


@pytest.fixture
def count_measures(monkeypatch):
    """The pictures that are measured from here on, by their names."""
    names = []
    original = run.measure

    def watched(codec, subjects, options):
        label = codec.space.model + "-symmetrized" * codec.space.is_symmetrized
        names.extend((label, subject.name) for subject in subjects)
        return original(codec, subjects, options)

    monkeypatch.setattr(run, "measure", watched)
    return names


def summary_of(result):
    (summary,) = [row for row in result.rows if row["kind"] == "summary"]
    return summary


def test_it_agrees_with_roundtrip(auravae, photos):
    result = auravae("eval", photos, "--json", "--lpips", "none", *FAST)
    assert (result.code, result.err) == (0, "")
    rows = {row["picture"]: row for row in result.rows if row["kind"] == "picture"}
    assert sorted(rows) == ["0.png", "1.png", "2.png", "3.png"]
    for name, row in rows.items():
        details = auravae("roundtrip", photos / name, "-o", "out.png", "--overwrite", "--json").row[
            "details"
        ]
        assert row["psnr"] == details["psnr"]
        assert row["ssim"] == details["ssim"]
        assert (row["ms_ssim"] is not None) == (name == "3.png")
    model = summary_of(result)["models"][0]
    mean = sum(row["psnr"] for row in rows.values()) / 4
    worst = min(rows.values(), key=lambda row: row["psnr"])
    assert model["quality"]["psnr"] == {
        "mean": pytest.approx(mean),
        "worst": worst["psnr"],
        "worst_picture": worst["picture"],
        "pictures": 4,
    }
    assert model["quality"]["ms_ssim"]["pictures"] == 1
    assert (model["noise"]["pictures"], model["storage"]["pictures"]) == (1, 1)
    assert model["certificate"]["data"]["pictures"] == 2
    assert model["latent"]["values"] == 5 * 7 + 6 * 8 + 3 * 3 + 22 * 21


def test_the_tables_fit_80_columns(auravae, photos, monkeypatch):
    result = auravae("eval", photos, "-m", "linear", "--symmetrize", "--flips", "all")
    assert result.code == 0
    assert max(map(len, result.text.splitlines())) <= 80
    for part in ("linear-symmetrized", "PSNR dB", "bfloat16", "no signs", "kurtosis", "0.05"):
        assert part in result.text
    assert "A flipped latent decodes as well as the plain one" in result.text
    monkeypatch.setattr(live, "FIRST_SECONDS", 0.0)
    watched = auravae("eval", photos, terminals="stdout stderr")
    assert "PSNR dB" in watched.text and "\x1b[" in watched.err


def test_long_names_fit_too(auravae, photos, repository):
    name = "a-checkpoint-with-a-name-that-goes-on-and-on.safetensors"
    shutil.copy(repository / "auravae_cli" / "weights" / "linear.safetensors", name)
    result = auravae("eval", photos, "-m", name, "-m", "linear", *FAST)
    assert result.code == 0
    assert max(map(len, result.text.splitlines())) <= 80


def test_quiet_says_nothing(auravae, photos):
    result = auravae("eval", photos, "-q", *FAST)
    assert (result.code, result.out, result.err) == (0, b"", "")


def test_a_run_is_gone_on_with(auravae, photos, tree, count_measures):
    first = auravae("eval", photos, "-o", "out", "--json", *FAST)
    assert len(count_measures) == 4
    files = tree(Path("out"))
    assert sorted(files) == ["certificate-linear.json", "results.jsonl", "summary.json"]
    again = auravae("eval", photos, "-o", "out", "--json", *FAST)
    assert len(count_measures) == 4
    assert again.rows == first.rows
    assert tree(Path("out")) == files
    lines = files["results.jsonl"].splitlines(keepends=True)
    Path("out/results.jsonl").write_bytes(b"".join(lines[:2]) + lines[2][:50])  # a crash
    assert auravae("eval", photos, "-o", "out", *FAST).code == 0
    assert len(count_measures) == 6
    auravae("eval", photos, "-o", "out", *FAST)
    assert len(count_measures) == 6


def test_only_what_is_new_is_measured(auravae, photos, picture, count_measures):
    auravae("eval", photos, "-o", "out", "--flips", "0", "--sweeps", "0")
    count_measures.clear()
    shutil.copy(photos / "0.png", photos / "renamed.png")
    picture(photos / "new.png", 16, 16)
    result = auravae("eval", photos, "-o", "out", "--flips", "0", "--sweeps", "0", "--json")
    assert count_measures == [("linear", "new.png")]
    assert summary_of(result)["data"]["pictures"] == 6
    names = {row["picture"] for row in result.rows if row["kind"] == "picture"}
    assert {"renamed.png", "0.png", "new.png"} < names
    changes = (
        ["--noise", "0.4"],
        ["--seed", "3"],
        ["--latent-dtype", "float32"],
        ["--resize", "20"],
    )
    for options in changes:
        count_measures.clear()
        auravae("eval", photos, "-o", "out", "--flips", "0", "--sweeps", "0", *options)
        assert len(count_measures) == 6


def test_a_larger_sample_measures_what_it_adds(auravae, photos, count_measures):
    auravae("eval", photos, "-o", "out", "--flips", "1", "--sweeps", "1")
    count_measures.clear()
    few = summary_of(
        auravae("eval", photos, "-o", "out", "--flips", "1", "--sweeps", "1", "--json")
    )
    assert not count_measures
    many = summary_of(
        auravae("eval", photos, "-o", "out", "--flips", "all", "--sweeps", "1", "--json")
    )
    assert len(count_measures) == 3
    assert few["models"][0]["certificate"]["data"]["pictures"] == 1
    assert many["models"][0]["certificate"]["data"]["pictures"] == 4
    fewer = summary_of(
        auravae("eval", photos, "-o", "out", "--flips", "1", "--sweeps", "1", "--json")
    )
    for summary in (few, fewer):
        del summary["models"][0]["seconds"]  # they were measured again
    assert fewer == few


def test_the_sample_does_not_depend_on_names(auravae, photos, picture):
    def sha(names_and_shifts):
        result = auravae("eval", photos, "--json", "--flips", "2", "--sweeps", "0")
        return summary_of(result)["models"][0]["certificate"]["data"]["sha256"]

    before = sha(photos)
    for path in list(photos.iterdir()):
        path.rename(path.with_name(f"z{9 - int(path.stem)}.png"))
    assert sha(photos) == before


def test_a_bad_picture_does_not_stop_the_others(auravae, photos):
    Path("photos/bad.png").write_text("no picture")
    result = auravae("eval", photos, "-o", "out", "--json", *FAST)
    assert result.code == 1
    assert "failed: bad.png: not a picture" in result.err
    summary = summary_of(result)
    assert summary["data"]["pictures"] == 4
    assert summary["failures"][0]["picture"] == "bad.png"
    assert auravae("eval", photos, "-o", "out", *FAST).code == 1


def test_a_picture_that_one_model_cannot_take(auravae, photos, monkeypatch):
    from auravae_cli.errors import ComputeError
    from auravae_cli.model.codec import Codec

    original = Codec.encode_unit

    def broken(self, images):
        if images.shape[-2:] == (24, 24):
            raise ComputeError("the encoder gave NaN")
        return original(self, images)

    monkeypatch.setattr(Codec, "encode_unit", broken)
    result = auravae("eval", photos, "--json", *FAST)
    assert result.code == 1
    assert "failed: 2.png (linear): the encoder gave NaN" in result.err
    assert summary_of(result)["data"]["pictures"] == 3


def test_nothing_but_bad_pictures(auravae, work):
    Path("bad.png").write_text("no picture")
    result = auravae("eval", "bad.png")
    assert (result.code, result.out) == (1, b"")


def test_a_tar_gives_what_its_folder_gives(auravae, photos):
    with tarfile.open("photos.tar", "w") as tar:
        tar.add("photos")
    folder = summary_of(auravae("eval", photos, "--json", *FAST))
    packed = summary_of(auravae("eval", "photos.tar", "--json", *FAST))
    for summary in (folder, packed):
        del summary["models"][0]["seconds"]
    assert json.dumps(packed).replace("photos/", "") == json.dumps(folder)
    Path("list.txt").write_text("photos/0.png\nphotos/1.png\n")
    assert (
        summary_of(auravae("eval", "--files-from", "list.txt", "--json", *FAST))["data"]["pictures"]
        == 2
    )


def test_csv(auravae, photos):
    assert (
        auravae("eval", photos, "--csv", "out.csv", "-m", "linear", "--symmetrize", *FAST).code == 0
    )
    rows = list(csv.DictReader(Path("out.csv").read_text().splitlines()))
    assert [row["model"] for row in rows] == ["linear"] * 4 + ["linear-symmetrized"] * 4
    assert {row["picture"] for row in rows} == {"0.png", "1.png", "2.png", "3.png"}
    assert sum(row["psnr_noise_0.1"] != "" for row in rows) == 2
    assert sum(row["encoder_error_hv"] != "" for row in rows) == 4
    assert float(rows[0]["psnr"]) > 20
    for one, other in zip(
        rows[:4], rows[4:], strict=True
    ):  # exact already: the mean changes nothing
        assert float(one["psnr"]) == pytest.approx(float(other["psnr"]), abs=1e-6)


# Certificates


def test_a_certificate_by_itself(auravae, photos):
    assert auravae("eval", photos, "--certificate", "c.json", "--sweeps", "0", "-q").code == 0
    content = json.loads(Path("c.json").read_text())
    assert content["model"] == "linear" and len(content["weights_sha256"]) == 64
    assert content["data"]["pictures"] == 4
    assert content["data"]["sizes_not_multiples"] == 2
    assert content["elements"]["hv"]["encoder_error"]["worst"] == 0
    assert content["statement"].startswith("A flipped latent")


def test_a_stores_certificate(auravae, photos):
    auravae("encode", photos, "-o", "store", "--layout", "shards")
    assert "certificate" not in auravae("info", "store", "--json").row
    assert auravae("eval", photos, "--certify", "store", *FAST, "-q").code == 0
    assert auravae("info", "store", "--json").row["certificate"].startswith("A flipped latent")
    assert auravae("verify", "store").code == 0
    assert auravae("encode", photos, "-o", "store").code == 0  # the store is what it was
    again = auravae("eval", photos, "--certify", "store", *FAST)
    assert again.code == 1 and "--overwrite" in again.err
    assert auravae("eval", photos, "--certify", "store", "--overwrite", *FAST).code == 0


def test_a_certificate_of_other_weights_is_noticed(auravae, photos):
    auravae("encode", photos, "-o", "store", "--layout", "shards")
    auravae("eval", photos, "--certify", "store", *FAST)
    path = Path("store/certificate.json")
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"weights_sha256": "0" * 64}))
    result = auravae("verify", "store")
    assert result.code == 1
    assert "certificate.json" in result.err and "says nothing of latents" in result.err
    assert "none that holds here" in auravae("info", "store", "--json").row["certificate"]
    path.write_text("{}")
    assert "no certificate" in auravae("verify", "store").err
    assert "none that is sound" in auravae("info", "store", "--json").row["certificate"]


def test_a_store_of_another_model_is_refused_before_anything_is_measured(
    auravae, photos, count_measures
):
    auravae("encode", photos, "-o", "store", "--layout", "shards", "--symmetrize")
    result = auravae("eval", photos, "--certify", "store")
    assert result.code == 1
    assert "symmetrized" in result.err and not count_measures
    assert auravae("eval", photos, "--certify", "store", "--symmetrize", *FAST).code == 0
    assert auravae("verify", "store").code == 0


# Refusals


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--flips", "some"], "expected a number such as 16, or all"),
        (["--noise", "0.1,x"], "expected levels"),
        (["--noise", "-1"], "expected levels"),
        (["--certificate", "c.json", "--flips", "0"], "a certificate needs --flips"),
        (["--certificate", "c.json", "--symmetrize"], "one certificate for 2 models"),
    ],
)
def test_wrong_usage(auravae, photos, count_measures, options, words):
    result = auravae("eval", photos, *options)
    assert result.code == 2
    assert words in result.message and not count_measures


def test_no_input(auravae, work):
    Path("empty").mkdir()
    for names in (["empty"], []):
        assert auravae("eval", *names).code == 2


def test_files_of_others_are_kept(auravae, photos, count_measures):
    Path("out").mkdir()
    for name, options in (
        ("out.csv", ["--csv", "out.csv"]),
        ("c.json", ["--certificate", "c.json"]),
        ("out/summary.json", ["-o", "out"]),
        ("out/results.jsonl", ["-o", "out"]),
    ):
        Path(name).write_text("mine\nand mine\n")
        result = auravae("eval", photos, *options)
        assert result.code == 1 and name in result.err
        assert Path(name).read_text() == "mine\nand mine\n"
        Path(name).unlink()
    assert not count_measures


def test_metrics_without_their_weights(auravae, photos):
    result = auravae("eval", photos, "--rfid", "gone.pth")
    assert result.code == 3 and "no such file" in result.err and "https://" in result.err
    result = auravae("eval", photos, "--lpips", "gone.safetensors")
    assert result.code == 3 and "gone.safetensors" in result.err
    assert auravae("eval", photos, "--lpips", "none", *FAST).code == 0


@pytest.mark.parametrize("package", [None, object()], ids=["no package", "no weights"])
def test_lpips_is_left_out_with_a_note(auravae, photos, monkeypatch, package):
    import importlib.util

    import auravae_cli.evaluation.perceptual  # noqa: F401 - or it would keep what follows for good

    genuine = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: package if name == "lpips" else genuine(name)
    )
    monkeypatch.setenv("TORCH_HOME", "nowhere")
    command = ("eval", photos / "0.png", "--flips", "0", "--sweeps", "0")
    result = auravae(*command)
    assert (result.code, NO_LPIPS in result.message) == (0, True)
    assert "note" not in auravae(*command, "--lpips", "none").err
    assert auravae(*command, "--quiet").err == ""


def test_a_full_disk_ends_it_in_one_line(auravae, photos, monkeypatch):
    original = Path.open

    def full(self, *arguments, **options):
        if self.name == "results.jsonl" and "a" in (arguments or ("r",))[0]:
            raise OSError(28, "No space left on device")
        return original(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", full)
    result = auravae("eval", photos, "-o", "out", *FAST)
    assert result.code == 1
    assert (
        result.err.splitlines()[-1]
        == "error: cannot write out/results.jsonl: No space left on device"
    )


def test_kept_runs_are_compared(auravae, photos):
    for folder, dtype in (("before", "float16"), ("after", "bfloat16")):
        assert auravae("eval", photos, "-o", folder, "--latent-dtype", dtype, "-q", *FAST).code == 0
    result = auravae("eval", "--compare", "before", "after")
    assert result.code == 0 and max(map(len, result.text.splitlines())) <= 80
    assert "linear, 4 pictures in common" in result.text and "psnr" in result.text
    assert "stored_dtype differs" in result.err and "fewer than 10 pictures" in result.err
    (row,) = auravae("eval", "--compare", "before", "after", "--json").rows
    assert row["kind"] == "comparison" and row["models"][0]["pictures"] == 4
    assert auravae("eval", photos, "--compare", "before", "after").code == 2
    assert auravae("eval", "--compare", "before", "photos").code == 2
    assert auravae("eval", photos, "--protocol", "mine").code == 2


def test_reconstructions_are_measured_beside_models(auravae, photos):
    shutil.copytree(photos, "made")
    result = auravae("eval", photos, "-m", "folder:made", "-m", "linear", *FAST)
    assert result.code == 0 and max(map(len, result.text.splitlines())) <= 80
    assert auravae("eval", photos, "-m", "folder:gone").code == 2


def test_quick_fits_a_window(auravae, photos):
    told = auravae("eval", photos, "--quick", "-m", "linear").text
    assert len(told.splitlines()) < 10
    assert "channel" not in told and "rFID" not in told and "text error" not in told


def test_quick_measures_quality_alone(auravae, photos):
    result = auravae("eval", photos, "--quick", "--json")
    summary = result.rows[-1]
    (model,) = summary["models"]
    assert model["quality"]["psnr"]["mean"] > 10
    assert model["certificate"] is model["noise"] is model["storage"] is None
