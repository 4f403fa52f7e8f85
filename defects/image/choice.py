"""Which model is packed: the one that is named, else the champion or the newest, if this checkout has trained it.

`python -m defects.image.choice` prints its tag, and says what it was trained on; `make bento` packs that one. The model
store of BentoML is shared by all checkouts of a user, so its newest model can be another project's.
"""

from __future__ import annotations

import sys
from contextlib import suppress

from defects import artifact, store
from defects.image.containers import ROOT
from defects.settings import BadSetting, Fatal, Settings


def choose(settings: Settings) -> tuple[artifact.Artifact, str]:
    """Choose the model to pack, and its tag; raises `BadSetting`, `NoModel` or `BadArtifact`."""
    if settings.model_dir:
        raise BadSetting("MODEL_DIR: expected none: a model is packed from the model store, or mounted (MODEL=none)")
    directory, tag = store.locate(None, settings.model, bento=ROOT.parent)
    assert tag is not None  # noqa: S101 - without a directory it is one of the store's
    model = artifact.load(directory, settings.model_digest)
    if not (settings.model or settings.model_digest or store.trained_here(tag)):
        kind = "champion" if tag == store.champion() else "newest model"
        raise BadSetting(
            f"DEFECTS_MODEL: is not set, and the {kind} of the store was not trained by this checkout: "
            f"{named(model, tag)}; expected DEFECTS_MODEL={tag} to pack it, or {own()}"
        )
    return model, tag


def named(model: artifact.Artifact, tag: str) -> str:
    """Name a model and its data, in a line."""
    return f"{tag}, {artifact.described(model.card)}, digest {model.digest}"


def own() -> str:
    """Say how this checkout's own model is packed."""
    tag = None
    with suppress(Exception):  # a damaged model, of whomever, is in the store
        tag = store.newest_trained_here()
    return f"DEFECTS_MODEL={tag} for its own newest one" if tag else "make train, which trains one here"


def main() -> None:
    """Print the tag of the model to pack, and nothing where the settings say that none is."""
    try:
        settings = Settings.from_environment()
        if settings.model_dir or settings.build:
            return
        model, tag = choose(settings)
    except Fatal as fatal:
        fatal.exit()
    sys.stderr.write(f"packing {named(model, tag)}\n")
    sys.stdout.write(f"{tag}\n")


if __name__ == "__main__":
    main()
