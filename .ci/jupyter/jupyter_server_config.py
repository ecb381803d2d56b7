"""What `make lab` adds to Jupyter's own settings: where a notebook shows sliders, the picture of them is saved.

A control lives as long as its kernel. Saved, it would be found as "Error displaying widget: model not found".
"""


def keep_pictures(model: dict, **_) -> None:
    "Drop the live view of each output that has a picture too."
    content = model["content"] if model["type"] == "notebook" else None
    for cell in content["cells"] if content else []:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output["data"].pop("application/vnd.jupyter.widget-view+json", None)


c.ContentsManager.pre_save_hook = keep_pictures  # noqa: F821  (`c` is Jupyter's)
