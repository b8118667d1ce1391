"""meta/info.json of a LeRobot folder: its fields are there, of their kind, and agree with each other."""
import json
import math

from worldplay.data.frame_cache import Source
from worldplay.data.lerobot_writer import INFO

VERSIONS = ("v3.0", "v2.1")
INDEX_FIELDS = ("timestamp", "frame_index", "episode_index", "index", "task_index")
PICTURES = ("video", "image")
OWN_REMEDY, OTHERS_REMEDY = "collect or pack it again", "mend it with the program that wrote it"


def read_object(path, remedy):
    """The object in a JSON file; ValueError naming the file where it holds anything else."""
    return parse_object(_read_text(path, remedy), path, remedy)


def read_lines(path, remedy):
    """[("FILE, row NUMBER", object)] of a file of JSON lines.

        Raises ValueError naming the file, and the row where it holds anything else.
    """
    if not path.is_file():
        raise ValueError(f"{path}: missing; {remedy}")
    # splitlines() would also break at characters that a text may hold, such as U+2028
    lines = _read_text(path, remedy).rstrip("\n").split("\n")
    places = [f"{path}, row {i}" for i in range(len(lines))]
    return [(where, parse_object(line, where, remedy)) for where, line in zip(places, lines)]


def _read_text(path, remedy):
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: no valid JSON (it is no UTF-8); {remedy}") from None


def parse_object(text, where, remedy):
    """The object in a JSON text; ValueError where it is anything else, with `where` the text is from."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: no valid JSON ({error}); {remedy}") from None
    if not isinstance(fields, dict):
        raise ValueError(f"{where}: no JSON object; {remedy}")
    return fields


def read_info(path):
    """The fields of meta/info.json, those that are read checked; ValueError names the file and the field."""
    if not path.is_file():
        raise ValueError(f"{path.parent.parent}: no finished data set ({INFO} is missing); {OWN_REMEDY}")
    info = read_object(path, OWN_REMEDY)
    remedy = OWN_REMEDY if "worldplay" in info else OTHERS_REMEDY

    def require(name, is_good, expected):
        value = info.get(name)
        if name not in info or not is_good(value):
            found = repr(value)[:60] if name in info else "missing"
            raise ValueError(f"{path}: field {name} is {found}, expected {expected}; {remedy}")
    require("codebase_version", lambda x: x in VERSIONS, f"one of {', '.join(VERSIONS)}")
    require("fps", lambda x: type(x) in (int, float) and 0 < x < math.inf, "a number above 0")
    for name in ("total_episodes", "total_frames"):
        require(name, lambda x: type(x) is int and x >= 0, "a whole number")
    if info["codebase_version"] == "v2.1":
        require("chunks_size", lambda x: type(x) is int and x > 0, "a whole number above 0")
    require("data_path", lambda x: isinstance(x, str), "a text")
    require("features", lambda x: isinstance(x, dict) and all(map(_is_feature, x.values())),
            "dtype and shape of every feature")
    for name in INDEX_FIELDS:
        if name not in info["features"]:
            raise ValueError(f"{path}: field features.{name} is missing; {remedy}")
    for name, feature in info["features"].items():
        if feature["dtype"] not in PICTURES:
            continue
        if feature["dtype"] == "video":
            require("video_path", lambda x: isinstance(x, str), "a text, for the videos")
        names, facts = feature.get("names") or [], feature.get("info") or {}
        if not isinstance(names, list) or not isinstance(facts, dict):
            raise ValueError(f"{path}: field features.{name}: names is no list, or info no object; {remedy}")
        shown = facts.get("video.fps", info["fps"])
        if shown != info["fps"]:
            raise ValueError(f"{path}: field features.{name}.info.video.fps is {shown}, but fps is "
                             f"{info['fps']}; {remedy}")
        if len(feature["shape"]) != 3:
            raise ValueError(f"{path}: field features.{name}.shape is {feature['shape']}, expected height, "
                             f"width and channels; {remedy}")
    if "worldplay" in info:
        _check_own(path, info)
    return info


def _is_feature(feature):
    return isinstance(feature, dict) and isinstance(feature.get("dtype"), str) and isinstance(
        feature.get("shape"), list) and all(type(length) is int and length > 0 for length in feature["shape"])


def is_depth(feature):
    """Whether a feature's pictures are distances, by what LeRobot writes beside them."""
    facts = feature.get("info") or {}
    return bool(facts.get("is_depth_map") or facts.get("video.is_depth_map"))


def _check_own(path, info):
    """Raise ValueError unless the field "worldplay" agrees with the fields that LeRobot reads."""
    try:
        own = info["worldplay"]
        source = Source.from_json(own)
        height, width = source.frame_size
        facts = {"fps": (source.fps, info["fps"]), "action_space": (
            source.action_space.num_channels, info["features"]["action"]["shape"][0])}
        for name, feature in info["features"].items():
            if feature["dtype"] == "video":
                facts["frame_size"] = ([height, width, 3], feature["shape"])
        own["player"], [(clip["world_hash"], clip["frames"]) for clip in own.get("clips", ())]
        facts["action"] = ("float32", info["features"]["action"]["dtype"])
    except KeyError as error:
        raise ValueError(f"{path}: field worldplay: {error} is missing; {OWN_REMEDY}") from None
    except (TypeError, ValueError, IndexError) as error:
        raise ValueError(f"{path}: field worldplay: {error}; {OWN_REMEDY}") from None
    for name, (ours, theirs) in facts.items():
        if ours != theirs:
            raise ValueError(f"{path}: field worldplay.{name} says {ours}, the rest of the file {theirs}; "
                             f"{OWN_REMEDY}")
