"""A model: a folder with a card and weights, found by path or by name."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tilemapper.errors import DiskFullError, ModelError, TargetError, TilemapperError
from tilemapper.networks.card import (
    CARD_NAME,
    ModelCard,
    PaletteClass,
    Tone,
    card_from,
    card_text,
    read_card,
)
from tilemapper.paths import alone_in, typed_path

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "DEFAULT_MODEL",
    "Model",
    "ModelCard",
    "PaletteClass",
    "Tone",
    "find_models",
    "list_models",
    "open_model",
    "save_model",
]

DEFAULT_MODEL = "maps"
FOLDERS_VARIABLE = "TILEMAPPER_MODELS"
WEIGHTS_NAME = "generator.safetensors"
_NOT_EMPTY = (errno.ENOTEMPTY, errno.EEXIST)  # said where a renamed folder would go


@dataclass(frozen=True)
class Model:
    """A trained generator with its card. Small and picklable: the weights stay on disk."""

    card: ModelCard
    folder: Path

    def _repr_html_(self) -> str:
        return self.card._repr_html_()

    def generator(self) -> nn.Module:
        """The generator in float32 and eval mode, norms unfolded, weights verified.

        (n, bands, tile, tile) in [-1, 1] -> (n, 3, tile, tile) in [-1, 1] for an rgb head,
        (n, K, tile, tile) logits for a palette head. Raises ModelError for damaged weights.
        """
        # Here: cards are read far more often than weights, and torch takes seconds.
        from tilemapper.networks.build import build_generator
        from tilemapper.networks.weights import generator_from, read_weights

        if self.card.weights is None:
            generator = build_generator(
                self.card.architecture, self.card.arguments, self.card.channels, self.card.head
            )
            if generator.state_dict():
                raise ModelError(
                    f"{self.folder / CARD_NAME}: names no weights, but a "
                    f"{self.card.architecture} needs some; restore the card"
                )
            return generator.eval()
        path = self.folder / self.card.weights
        try:
            data = read_weights(path, self.card)
        except ModelError:
            self._check_card()
            raise
        return generator_from(self.card, data, name=str(path))

    def _check_card(self) -> None:
        """Tells of another model in the folder, as a training leaves its best one again and again.

        Raises:
            ModelError: one stands there.
        """
        if read_card(self.folder).digest != self.card.digest:
            raise ModelError(
                f"{self.folder}: another model was put there since this one was opened; run the "
                "same command again"
            )


def open_model(name_or_path: str | Path) -> Model:
    """The model in that folder, or of that name in the known folders.

    A path is tried first; then ``$TILEMAPPER_MODELS`` (folders separated as in PATH), the models
    shipped in the package, and ``models/`` of a checkout. Raises ModelError with the names that
    there are, or for a damaged card.
    """
    typed = typed_path(name_or_path)
    if _is_file(typed / CARD_NAME):
        return Model(read_card(typed), typed.resolve())
    if typed.name == CARD_NAME and _is_file(typed):
        return open_model(typed.parent)
    for folder in _folders():
        # A plain name only: a path that is not there must not be found elsewhere.
        if typed.name == str(name_or_path) and _is_file(folder / typed / CARD_NAME):
            return Model(read_card(folder / typed), folder / typed)
    names = [model.card.name for model in list_models()]
    raise ModelError(
        f"{name_or_path}: no model of this name or path, there are: {', '.join(names) or 'none'}; "
        f"give one of them, or a folder with {CARD_NAME}"
    )


def _is_file(path: Path) -> bool:
    """Whether a file is there; none is by a name that no file can have, or where none may look."""
    try:
        return path.is_file()
    except OSError:
        return False


def list_models() -> list[Model]:
    """All models found by name, first come first; damaged cards are left out."""
    return find_models()[0]


def find_models() -> tuple[list[Model], list[ModelError]]:
    """The models found by name, and what is wrong with those that cannot be opened."""
    models: dict[str, Model] = {}
    faults = []
    for folder in _folders():
        # Not those that are being saved: they lie in a hidden folder until they are whole.
        for card in sorted(folder.glob(f"[!.]*/{CARD_NAME}")):
            try:
                models.setdefault(card.parent.name, Model(read_card(card.parent), card.parent))
            except ModelError as error:
                faults.append(error)
    return list(models.values()), faults


def _folders() -> list[Path]:
    package = Path(__file__).parents[1]
    named = [Path(p) for p in os.environ.get(FOLDERS_VARIABLE, "").split(os.pathsep) if p]
    checkout = package.parent
    local = [checkout / "models"] if (checkout / "pyproject.toml").is_file() else []
    return [folder.resolve() for folder in [*named, package / "models", *local] if folder.is_dir()]


def save_model(
    folder: Path, card: ModelCard, generator: nn.Module, readme: str, *, replace: bool = True
) -> Model:
    """Writes a model folder: weights as float16 safetensors, card with their sha256, README.md.

    A new folder appears at once and complete. In an existing model folder the card is replaced
    last and in one step, and names a new weights file: at any moment it holds the old model or
    the new one, whoever else saves one there. Raises ModelError for weights that are not finite or
    do not fit the card, TargetError or DiskFullError when the folder cannot be written, TargetError
    without ``replace`` where it holds a model, also one that came meanwhile.
    """
    from tilemapper.networks.weights import generator_from, pack_weights  # loads torch

    data = pack_weights(generator, name=str(folder)) if generator.state_dict() else None
    values = card.model_dump() | {"weights": None, "weights_sha256": None}
    if data is not None:
        digest = hashlib.sha256(data).hexdigest()
        values |= {"weights": WEIGHTS_NAME, "weights_sha256": digest}
    card = card_from(values, where=str(folder))
    if data is not None:
        generator_from(card, data, name=str(folder))
    while True:
        there = folder.is_dir()
        try:
            with alone_in(folder):  # each that replaces a model removes all weights but its own
                return Model(_put(folder, card, data, readme, there, replace), folder.resolve())
        except TilemapperError:
            raise
        except OSError as error:
            if error.errno in _NOT_EMPTY and not there and folder.is_dir():
                continue  # another has put one there since
            kind = DiskFullError if error.errno in (errno.ENOSPC, errno.EDQUOT) else TargetError
            raise kind(
                f"{folder}: cannot be written ({error.strerror}), a model that was there is whole; "
                "make room or save it elsewhere"
            ) from error


def _put(
    folder: Path, card: ModelCard, data: bytes | None, readme: str, there: bool, replace: bool
) -> ModelCard:
    """Writes the files, and removes the weights of a model that they replace; the card as written.

    there: the folder is; where it is not, a rename fails if one has come.
    """
    replacing = (folder / CARD_NAME).exists()
    if replacing and not replace:
        raise TargetError(f"{folder}: exists already; choose a new folder")
    if replacing and card.weights_sha256 is not None:
        name = f"generator-{card.weights_sha256[:12]}.safetensors"
        card = card.model_copy(update={"weights": name})
    files = {"README.md": readme.encode(), CARD_NAME: card_text(card).encode()}
    if data is not None and card.weights is not None:
        files = {card.weights: data, **files}
    _write_folder(folder, files, replacing=there)
    if replacing:
        for old in folder.glob("generator*.safetensors"):
            if old.name != card.weights:
                old.unlink(missing_ok=True)
    return card


def _write_folder(folder: Path, files: dict[str, bytes], *, replacing: bool) -> None:
    """Writes ``files`` in their order; whole folder in one rename unless it is there already."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    inside = folder if replacing else folder.parent
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=inside))
    try:
        part.chmod(0o755)
        for name, data in files.items():
            with (part / name).open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        _fsync(part)
        if replacing:
            for name in files:
                (part / name).replace(folder / name)
                _fsync(folder)
        else:
            part.rename(folder)
            _fsync(folder.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _fsync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
