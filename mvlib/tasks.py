"""What models are for: the one table of tasks, and the refusal of a model by what is for another. Imports no torch."""

from __future__ import annotations

from typing import Any, NamedTuple, NoReturn

from .errors import ConfigError
from .names import closest

__all__ = ["CLASSIFICATION", "TASKS", "Task", "check_classifies", "find_task", "refuse"]

CLASSIFICATION = "classification"


class Task(NamedTuple):
    """What models of a task do, as sentences and tables have it.

    Attributes:
        model: Such a model, with its article.
        takes: What its `forward` takes.
        columns: Fields of a search by which such models are compared, the most important first.
        preset: torchvision's class that prepares inputs.
    """

    model: str
    takes: str
    columns: tuple[str, ...]
    preset: str


_IMAGES = "a list of images (3, height, width) in [0, 1]"
TASKS = {
    CLASSIFICATION: Task("a classifier of images", "a batch (n, 3, height, width)", ("top1", "top5"),
                         "ImageClassification"),
    "detection": Task("a detector of objects", _IMAGES, ("box_map",), "ObjectDetection"),
    "instance_segmentation": Task("a detector of objects and their masks", _IMAGES, ("mask_map", "box_map"),
                                  "ObjectDetection"),
    "keypoint_detection": Task("a detector of people and their keypoints", _IMAGES, ("kp_map", "box_map"),
                               "ObjectDetection"),
    "segmentation": Task("a segmenter of images", "a batch (n, 3, height, width)", ("miou", "pixel_acc"),
                         "SemanticSegmentation"),
    "video_classification": Task("a classifier of videos", "clips (n, 3, frames, height, width)",
                                 ("video_top1", "video_top5"), "VideoClassification"),
    "optical_flow": Task("a model of optical flow", "two batches (n, 3, height, width) in [-1, 1]", ("epe",),
                         "OpticalFlow"),
}


def find_task(name: str) -> str:
    """The task of this name.

    Raises:
        ConfigError: There is none.
    """
    found = name.strip().lower().replace("-", "_").replace(" ", "_")
    if found not in TASKS:
        hint = closest(found, TASKS) or f"; tasks: {', '.join(TASKS)}"
        raise ConfigError(f"there is no task '{name}'{hint}")
    return found


def refuse(model_name: str, task: str, what: str, instead: str | None = None) -> NoReturn:
    """Say that what is for classifiers does not take this model, and what to do.

    Args:
        model_name: Its name.
        task: Its task.
        what: Who refuses, "predict" or "features_only=True".
        instead: What to do; by default, how such a model is used.

    Raises:
        ConfigError: Always.
    """
    instead = instead or (f"call mvlib.create_model('{model_name}') on {TASKS[task].takes}, as mvlib.get_model_weights("
                          f"'{model_name.partition('.')[0]}').DEFAULT.transforms() prepares them")
    raise ConfigError(f"'{model_name}' is {TASKS[task].model}, and {what} takes classifiers of images alone: {instead}")


def check_classifies(model: Any, what: str, instead: str | None = None) -> None:
    """Refuse a model that `create_model` has built for another task; see `refuse`.

    Raises:
        ConfigError: It is one.
    """
    config = getattr(model, "weights_config", None)
    if config is not None and config.task != CLASSIFICATION:
        refuse(config.name, config.task, what, instead)
