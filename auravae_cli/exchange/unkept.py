"""What an export omits: the fields of docs/format.md that a format's own readers do not find."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from auravae_cli.exchange.formats.base import Choices, Format, Network, label_of, original_size
from auravae_cli.images.trainer_buckets import TRAINERS, resolutions_of
from auravae_cli.latents.latent_file import LatentFile
from auravae_cli.latents.record import FIELDS, is_set

_OF_THE_SPACE = ("model", "weights_sha256", "downsampling_factor", "representation", "clamp")
_ALWAYS = (*_OF_THE_SPACE, "tool_version")
_MOST_TOLD = 4
_SIDES_SWAPPED = range(5, 9)  # EXIF orientations


@dataclass
class Unkept:
    """What was known of the exported latents of a run."""

    form: Format
    choices: Choices = Choices()
    rows: int = 0
    unlabelled: int = 0
    classes: set[str] = field(default_factory=set)
    earlier_files: int = 0
    other_buckets: int = 0
    on_their_side: int = 0
    resolutions: Counter[int] = field(default_factory=Counter)
    shapes: set[tuple[int, ...]] = field(default_factory=set)
    known: set[str] = field(default_factory=set)
    dtypes: set[str] = field(default_factory=set)

    def add(self, latents: LatentFile, names: Sequence[str]) -> None:
        """Add a latent, or a stack, by the names of their files."""
        rows = len(latents.records)
        self.rows += rows
        self.dtypes.add(latents.dtype.name)
        self.shapes.add(latents.values.shape[-3:])
        for name in FIELDS.keys() - {"annotations", "computed"} - self.known:
            if any(is_set(record, name) for record in latents.records):
                self.known.add(name)
        for record in latents.records:
            self.known.update(record.annotations)
            self.unlabelled += label_of(record) is None
            self.on_their_side += record.exif_orientation in _SIDES_SWAPPED
        if self.form.counts_classes:
            self._count_class(latents, names[0])
        if self.form.name in TRAINERS:
            self._compare_buckets(latents)

    def _count_class(self, latents: LatentFile, name: str) -> None:
        """Add the folder of a latent, which is its class for readers, even without a label."""
        folder = self.form.folder(latents, name)
        self.unlabelled -= not folder
        self.classes.add((folder + name).partition("/")[0])

    def _compare_buckets(self, latents: LatentFile) -> None:
        """Compare the size of a latent, which was not made for the trainer, with its buckets."""
        (record,), name = latents.records, self.form.name
        buckets = record.preparation.get("buckets")
        of = buckets.get("of") if isinstance(buckets, dict) else None
        if name in (of, record.preparation.get("imported_from")):
            return
        factor, (height, width) = latents.space.downsampling_factor, latents.values.shape[-2:]
        found = resolutions_of(name, original_size(latents), (factor * height, factor * width))
        if found and self.form.is_cropped(latents):
            self.resolutions.update(found)
        else:
            self.other_buckets += 1

    @property
    def not_kept(self) -> list[str]:
        """Return the known fields that the format's readers do not find."""
        known = [*_ALWAYS, *self.known] if self.rows else []
        return sorted(name for name in known if name not in self.form.keeps)

    @property
    def widened(self) -> dict[str, str]:
        """Return what each dtype became that the format does not have."""
        return {name: "float32" for name in sorted(self.dtypes) if name not in self.form.dtypes}

    def to_json(self, flipped: bool) -> dict[str, Any]:
        """Return the summary of a run as JSON types."""
        return {
            "format": self.form.name,
            "rules": self.form.rules,
            "latents": self.rows,
            "flipped_copy": self.form.flipped if flipped and self.form.flipped else None,
            "not_kept": self.not_kept,
            "travels_in": self.form.note or None,
            "stored_as": self.widened,
            "notices": self.notices(),
        }

    def lines(self, flipped: bool) -> list[str]:
        """Return the summary of a run as text."""
        lines = []
        if self.not_kept and self.form.note:
            lines.append(
                f"{', '.join(self.not_kept)}: not for readers of {self.form.name}, but `auravae import` "
                f"finds them in {self.form.note}"
            )
        elif self.not_kept:
            lines.append(f"lost, since {self.form.name} has no place: {', '.join(self.not_kept)}")
        if self.widened:
            lines.append(f"{', '.join(self.widened)} became float32, exactly")
        if flipped and self.form.flipped:
            lines.append(f"flipped by the group action: {self.form.flipped}")
        return lines + self.notices()

    def notices(self) -> list[str]:
        """Return what the user of the files should know."""
        notices = [self.form.advice] if self.form.advice and self.rows else []
        notices += self._of_the_network() if self.rows else []
        if self.resolutions:
            counts = sorted(self.resolutions.items())
            shown = ", ".join(f"{side} ({count} latents)" for side, count in counts[:_MOST_TOLD])
            more = f", and {len(counts) - _MOST_TOLD} others" if len(counts) > _MOST_TOLD else ""
            notices.append(f"they fit the trainer's buckets at a resolution of {shown}{more}")
        if self.other_buckets:
            notices.append(
                f"{self.other_buckets} of {self.rows} fit none of the trainer's buckets at the usual "
                "resolutions: it encodes those again with its own autoencoder, or fails; encode with "
                f"--buckets-of {self.form.name}:SIDE"
            )
        if self.on_their_side and not self.form.turns_pictures:
            notices.append(
                f"{self.on_their_side} of {self.rows} pictures lie on their side, with an EXIF entry that the trainer "
                "ignores: it looks for a file of the other size, and encodes those again with its own "
                "autoencoder; save them upright before encoding"
            )
        classes = sorted(self.classes)
        if classes != [f"{number:06d}" for number in range(len(classes))]:
            notices.append(
                f"its readers number the classes by their folders, in order: the {len(classes)} from "
                f"{classes[0]} to {classes[-1]} become 0 to {len(classes) - 1} there"
            )
        if self.form.fills_labels and self.unlabelled:
            notices.append(f"{self.unlabelled} of {self.rows} have no label: 0 stands in its place")
        elif self.form.paired and self.unlabelled:
            notices.append(
                f"{self.unlabelled} of {self.rows} have no label, so none are written; REPA needs them: "
                "--pictures FOLDER takes them from its dataset.json"
            )
        if self.earlier_files:
            notices.append(
                f"of an earlier export, {self.earlier_files} more of its files are in the folder, which "
                "readers take in: remove them, or export to another folder"
            )
        if self.form.stacked and self.form.needs_flipped and len(self.shapes) > 1:
            notices.append(
                f"{len(self.shapes)} shapes: its batches take one; encode with --buckets or --center-crop"
            )
        return notices

    def _of_the_network(self) -> list[str]:
        """Return what the trainer does to these values, if that goes against them."""
        network = self.form.archs.get(self.choices.arch, Network())
        notices = []
        channels = {shape[0] for shape in self.shapes} - {network.channels}
        if self.form.archs and channels:
            notices.append(
                f"{self.choices.arch} takes {network.channels} channels, and these have "
                f"{', '.join(map(str, sorted(channels)))}: change the network's input"
            )
        if network.shift:
            formula = f"(z - {network.shift:g}) * {network.scale:g}"
            notices.append(
                f"the trainer computes {formula} of what it reads for {self.choices.arch}"
                + (
                    ", whose inverse has been applied: it gets these values"
                    if self.choices.fold
                    else ": the shift takes the mirrored copy's odd channels off the mirror image; "
                    "--for-shift folds in the inverse"
                )
            )
        return notices
