"""The app that MONAI Label's server runs; bad input comes back as a 4xx with a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware import Middleware
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, Response
from monailabel.config import settings
from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.exception import MONAILabelError, MONAILabelException
from pydantic import ValidationError

from ...data.manifest import SLIDE_ENDINGS
from ...errors import InputError, user_message
from ...version import bundle_version
from ...workflows.trained_run import trained_run
from .request import read_training
from .routes import router
from .studies import find_slide, studies_with_units
from .tasks import PixNetInfer, PixNetTrain

__all__ = ["PixNetApp"]

#: Pages of MONAI Label's that stay: its description of the routes, as data and to try them out.
_PAGES = {"/", "/docs", "/openapi.json", "/favicon.ico"}


class PixNetApp(MONAILabelApp):
    """PixNet as an app.

    Args:
        app_dir: this folder.
        studies: the studies folder.
        conf: `run`, the run folder of the model; `device`, if not the default; `trust`, `true` if the model may run
            code of its own; `origins` of other sites whose pages may send requests, with spaces between.
    """

    def __init__(self, app_dir: str, studies: str, conf: Mapping[str, str]) -> None:
        if "run" not in conf:
            raise InputError("Which model? Give --conf run RUN, the folder of a finished training run.")
        self.trust = str(conf.get("trust", "")).strip().lower() == "true"
        self.run, _ = trained_run(conf["run"], self.trust)
        self.model_settings = {"device": conf["device"]} if conf.get("device") else {}
        self.origins = conf.get("origins", "").split()
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
        return {"pixnet": PixNetInfer(self.run, self.model_settings, self.trust)}

    def init_trainers(self) -> dict[str, PixNetTrain]:
        """One task."""
        return {"pixnet": PixNetTrain(self.run, self.studies, self.model_settings, self.trust)}

    def init_strategies(self) -> dict[str, Any]:
        """None: there is no sample to label next."""
        return {}

    def infer(self, request: Mapping[str, Any], datastore: Any = None) -> dict[str, Any]:
        """Predict a slide of the studies folder, and no other file."""
        slide = find_slide(self.studies, request.get("image"))
        return super().infer({**request, "image": str(slide), "save_label": False}, datastore)

    def infer_wsi(self, request: Mapping[str, Any], datastore: Any = None) -> dict[str, Any]:
        """The same: PixNet tiles a region itself, with the margin that its network needs."""
        if request.get("output") in ("asap", "dsa"):
            raise InputError(f'PixNet writes GeoJSON, not "{request["output"]}": leave output out.')
        return self.infer(request, datastore)

    def training_of(self, model: str, request: Mapping[str, Any]) -> dict[str, float]:
        """What a request of `/train` sets, checked, so that it is refused before anything starts."""
        if model not in self._trainers:
            raise MONAILabelException(MONAILabelError.INVALID_INPUT, f'There is no model "{model[:50]}" to train.')
        studies_with_units(self.studies)
        return read_training(request)

    def on_init_complete(self) -> None:
        """Close the server's other routes, and give each kind of exception its status."""
        from monailabel.app import app  # which imports this module

        super().on_init_complete()
        app.router.routes[:] = [route for route in app.routes if getattr(route, "path", None) in _PAGES]
        app.include_router(router)
        for kind in (ValueError, RequestValidationError, MONAILabelException):
            app.add_exception_handler(kind, _sentence)
        # MONAI Label's own lets pages of every site in, and 0.8.5 does not start with MONAI_LABEL_CORS_ORIGINS set.
        allowed = {"allow_origins": self.origins, "allow_methods": ["GET", "POST", "DELETE"], "allow_headers": ["*"]}
        app.user_middleware = [Middleware(CORSMiddleware, **allowed)]
        app.middleware_stack = app.build_middleware_stack()  # the present one was built before these were known


async def _sentence(request: Request, error: Exception) -> Response:
    """400, 404 or 422 for what the user can put right; anything else stays an error of the server."""
    if isinstance(error, MONAILabelException):
        return JSONResponse({"detail": error.msg}, 404)
    if isinstance(error, (ValidationError, RequestValidationError)):
        found = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        return JSONResponse({"detail": f"The request is not as / describes it: {'; '.join(found)}."}, 422)
    sentence = user_message(error)
    if sentence is None:
        raise error
    return JSONResponse({"detail": sentence}, 400)
