"""The routes of MONAI Label that PixNet serves.

Its other routes write into the studies folder, take or remove weights and hand out slides to whoever reaches the port.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, BackgroundTasks, Depends, Form, HTTPException
from monailabel.config import settings
from monailabel.endpoints import infer, info, train, wsi_infer
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.async_tasks.utils import processes

from ...errors import InputError, reason

__all__ = ["router"]

AnyUser = Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))]
Admin = Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ADMIN))]

router = APIRouter()
router.get("/info/", summary="Genes, options and the served model")(info.api_app_info)
router.get("/train/", summary="State of the training, and the last lines of its log")(train.api_status)
router.delete("/train/", summary="Stop the training")(train.api_stop)


# The functions are `async` and await nothing, so the server runs one request at a time, as the model needs.
@router.post("/infer/{model}", summary="Predict a slide")
async def infer_slide(
    background_tasks: BackgroundTasks,
    user: AnyUser,
    model: str,
    image: str = "",
    params: Annotated[str, Form()] = "{}",
    output: Literal["image", "json", "all"] = "all",
) -> Any:
    """A file, its summary or both; `params` are the options that `/info/` lists."""
    app = app_instance()
    result = app.infer(_request(model, image, _options("params", params)))
    return infer.send_response(app.datastore(), result, output, background_tasks)


@router.post("/infer/wsi_v2/{model}", summary="Predict a region of a slide")
async def infer_region(
    background_tasks: BackgroundTasks,
    user: AnyUser,
    model: str,
    image: str = "",
    wsi: Annotated[str, Form()] = "{}",
    output: wsi_infer.ResultType | None = None,
) -> Any:
    """A file or its summary; `wsi` has the region's `location` and `size`, and as `params` the options."""
    app = app_instance()
    asked = wsi_infer.WSIInput.model_validate(_options("wsi", wsi))
    region = {"output": output and output.value, **asked.model_dump(exclude={"params"})}
    result = app.infer_wsi(region | _request(model, image, asked.params or {}))
    return wsi_infer.send_response(app.datastore(), result, output, background_tasks)


@router.post("/train/{model}", summary="Fine-tune on the studies that have measured units")
async def fine_tune(user: Admin, model: str, asked: dict[str, Any]) -> Any:
    """Start a training in the background; refused while another one runs.

    The body may be empty (`{}`) but must be JSON: another site's page cannot send that without being allowed to.
    """
    checked = app_instance().training_of(model, asked)
    if processes("train"):
        raise HTTPException(429, "A training is running: wait until GET /train/ tells its end, or DELETE /train/.")
    return train.run_model(model, checked)


def _options(name: str, text: str) -> dict[str, Any]:
    try:
        asked = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f'"{name}" holds no valid JSON ({reason(error)[:100]}).') from error
    if not isinstance(asked, dict):
        raise InputError(f'"{name}" must be keys and their values, as in {{"key": 50}}.')
    return asked


def _request(model: str, image: str, asked: dict[str, Any]) -> dict[str, Any]:
    named = {"model": model, "image": image}
    for key, value in named.items():
        if asked.get(key, value) != value:
            raise InputError(f'"params" names another {key} than the address does; name it there alone.')
    return asked | named
