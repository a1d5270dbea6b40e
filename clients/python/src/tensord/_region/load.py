"""Model files that the server loads: what is asked of it, and where the file is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast
from uuid import uuid4

from tensord._api import Api
from tensord._wire.region import RegionDescriptor

from .operation import Operation

if TYPE_CHECKING:
    from tensord._wire import schemas

LoadIfExists = Literal["attach", "fail"]
LoadMode = Literal["auto", "map", "copy"]


def to_load(
    path: str, body: schemas.CreateRegion, if_exists: LoadIfExists, *, raw: bool, mode: LoadMode
) -> tuple[str, schemas.LoadModel]:
    """The model, and the load of the file into a region that is to be what ``body`` says."""
    target: dict[str, Any] = {**body}
    model = target.pop("model")
    load: dict[str, Any] = {"uri": to_uri(path), **target}
    if raw:
        load["format"] = "raw"
    # A server from before there was another takes it as it is.
    if mode != "copy":
        load["mode"] = mode
    if if_exists != "attach":
        load["if_exists"] = if_exists
    return model, cast("schemas.LoadModel", load)


def to_uri(path: str) -> str:
    """Where the file is, for the server: a relative path counts from this process's folder; a URI stands as it is."""
    return path if path.startswith(("file://", "s3://")) else Path(path).absolute().as_uri()


def start_load(api: Api, model: str, body: schemas.LoadModel) -> Operation[RegionDescriptor]:
    """Begins to load a file into a region that has an owner."""
    return Operation(api, api.load_model(model, {**body, "key": uuid4().hex}))
