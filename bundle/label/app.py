"""The app that MONAI Label's server runs; bad input comes back as a 4xx with a sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from json import JSONDecodeError
from pathlib import Path
from typing import Any

from fastapi import HTTPException, Request
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from monailabel.config import settings
from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.exception import MONAILabelException
from pydantic import ValidationError

from ..commands import trained_run
from ..errors import InputError, user_message
from ..manifest import SLIDE_ENDINGS
from ..version import bundle_version
from .studies import find_slide
from .tasks import PixNetInfer, PixNetTrain

__all__ = ["PixNetApp"]


class PixNetApp(MONAILabelApp):
    """PixNet as an app.

    Args:
        app_dir: this folder.
        studies: the studies folder.
        conf: `run`, the run folder of the model; `device`, if not the default.
    """

    def __init__(self, app_dir: str, studies: str, conf: Mapping[str, str]) -> None:
        if "run" not in conf:
            raise InputError("Which model? Give --conf run RUN, the folder of a finished training run.")
        self.run, _ = trained_run(conf["run"])
        self.model_settings = {"device": conf["device"]} if conf.get("device") else {}
        super().__init__(
            app_dir,
            studies,
            dict(conf),
            name="PixNet",
            description="Gene expression predicted from H&E slides",
            version=bundle_version(),
        )

    def init_datastore(self) -> LocalDatastore:
        """Slides of the studies folder, whatever their ending."""
        if not Path(self.studies).is_dir():
            raise InputError(f"{self.studies} is no folder; PixNet serves slides of a folder on this machine.")
        return LocalDatastore(
            self.studies,
            # The last that fits is taken off a name: `.ome.tif` after `.tif`.
            extensions=[f"*{ending}" for ending in reversed(SLIDE_ENDINGS)],
            auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
            read_only=settings.MONAI_LABEL_DATASTORE_READ_ONLY,
        )

    def init_infers(self) -> dict[str, PixNetInfer]:
        """One task."""
        return {"pixnet": PixNetInfer(self.run, self.model_settings)}

    def init_trainers(self) -> dict[str, PixNetTrain]:
        """One task."""
        return {"pixnet": PixNetTrain(self.run, self.studies, self.model_settings)}

    def infer(self, request: Mapping[str, Any], datastore: Any = None) -> dict[str, Any]:
        """Answer for a slide of the studies folder, and no other file."""
        slide = find_slide(self.studies, request.get("image"))
        return super().infer({**request, "image": str(slide), "save_label": False}, datastore)

    def infer_wsi(self, request: Mapping[str, Any], datastore: Any = None) -> dict[str, Any]:
        """The same: PixNet tiles a region itself, with the margin that its network needs."""
        if request.get("output") in ("asap", "dsa"):
            raise InputError(f'PixNet writes GeoJSON, not "{request["output"]}": leave output out.')
        return self.infer(request, datastore)

    def init_batch_infer(self) -> Callable:
        """Many slides are the command line's work."""

        def refuse(*_: Any) -> None:
            raise InputError("Many slides are predicted with `pixnet predict COHORT.csv OUT_DIR` (docs/cohorts.md).")

        return refuse

    def on_init_complete(self) -> None:
        """Tell the server which status goes with which exception."""
        from monailabel.app import app  # which imports this module

        super().on_init_complete()
        for kind in (ValueError, RequestValidationError, MONAILabelException, HTTPException):
            app.add_exception_handler(kind, _sentence)
        app.middleware_stack = app.build_middleware_stack()  # the present one was built before these were known


async def _sentence(request: Request, error: Exception) -> Response:
    """400, 404 or 422 for what the user can put right; anything else stays an error of the server."""
    if isinstance(error, HTTPException):
        if error.status_code != 500 or not str(error.detail).startswith("Neither Image"):
            return await http_exception_handler(request, error)
        return JSONResponse({"detail": "The request names no slide: give image=NAME."}, 400)
    if isinstance(error, MONAILabelException):
        return JSONResponse({"detail": error.msg}, 404)
    if isinstance(error, (ValidationError, RequestValidationError)):
        found = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        return JSONResponse({"detail": "; ".join(found)}, 422)
    sentence = user_message(error)
    if isinstance(error, JSONDecodeError):
        sentence = f"The request holds no valid JSON ({error})."
    if sentence is None:
        raise error
    return JSONResponse({"detail": sentence}, 400)
