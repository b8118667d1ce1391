"""Small LeRobot folders as other programs write them, by plain pyarrow and PyAV."""
import json

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FPS, SIZE, LENGTHS = 10, (48, 64), (12, 30, 9)
TASKS = ("reach the door", "stand still")
FRONT, WRIST = "observation.images.front", "observation.images.wrist"


def grey(camera, episode, i):
    """The grey of a frame: it tells camera, episode and frame apart, also in a lossy video."""
    return ((20 if camera == FRONT else 130) + 35 * episode + i) % 256


def action(episode, i):
    """(forward, strafe, turn): forward is on or off, strafe an axis, turn in units of 2 degrees."""
    return [float(i % 2), [-1.0, 0.0, 1.0][i % 3], 0.25 * (i - 5) * (episode + 1)]


def write_video(path, greys, codec):
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"libsvtav1": {"crf": "20", "preset": "10"}, "libx264": {"crf": "12"}}[codec]
    with av.open(str(path), "w") as video:
        stream = video.add_stream(codec, rate=FPS, options=options)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        for value in greys:
            frame = np.full((*SIZE, 3), value, np.uint8)
            video.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        video.mux(stream.encode())


def features(cameras, names):
    single = {name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in (
        ("timestamp", "float32"), ("frame_index", "int64"), ("episode_index", "int64"), ("index", "int64"),
        ("task_index", "int64"))}
    return {"action": {"dtype": "float32", "shape": [3], "names": names},
            "observation.state": {"dtype": "float32", "shape": [2], "names": {"motors": ["x", "y"]}},
            "next.done": {"dtype": "bool", "shape": [1], "names": None},
            "note": {"dtype": "string", "shape": [1], "names": None},
            **{camera: {"dtype": "video", "shape": [*SIZE, 3], "names": ["height", "width", "channels"],
                        "info": {"video.fps": FPS, "video.codec": "av1", "has_audio": False}}
               for camera in cameras},
            **single}


def table(episodes, first):
    """Rows of these (number, length), lists of any length as pandas writes them."""
    rows, columns = [(n, i) for n, length in episodes for i in range(length)], {}
    columns["action"] = pa.array([action(n, i) for n, i in rows], pa.list_(pa.float32()))
    columns["observation.state"] = pa.array([[n, i] for n, i in rows], pa.list_(pa.float32()))
    columns["next.done"] = pa.array([False for _ in rows])
    columns["note"] = pa.array(["" for _ in rows])
    columns["timestamp"] = pa.array([i / FPS for _, i in rows], pa.float32())
    for name, values in (("frame_index", [i for _, i in rows]), ("episode_index", [n for n, _ in rows]),
                         ("index", range(first, first + len(rows))),
                         ("task_index", [n % 2 for n, _ in rows])):
        columns[name] = pa.array(list(values), pa.int64())
    return pa.table(columns)


def info(version, cameras, names, lengths, **paths):
    return {"codebase_version": version, "robot_type": "stick", "total_episodes": len(lengths),
            "total_frames": sum(lengths), "total_tasks": 2, "chunks_size": 1000, "fps": FPS,
            "splits": {"train": f"0:{len(lengths)}"}, **paths, "features": features(cameras, names)}


def write_v3(folder, *, cameras=(FRONT,), names=("forward", "strafe", "turn"), codec="libsvtav1",
             lengths=LENGTHS):
    """v3.0: one table of all episodes; of each camera one video of the first two and one of the rest."""
    data = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    video = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    rows, first = [], 0
    for n, length in enumerate(lengths):
        begins = sum(lengths[:n]) / FPS if n < 2 else sum(lengths[2:n]) / FPS
        places = {f"videos/{camera}/{name}": value for camera in cameras for name, value in (
            ("chunk_index", 0), ("file_index", int(n >= 2)), ("from_timestamp", begins),
            ("to_timestamp", begins + length / FPS))}
        rows.append({"episode_index": n, "tasks": [TASKS[n % 2]], "length": length, "data/chunk_index": 0,
                     "data/file_index": 0, "dataset_from_index": first, "dataset_to_index": first + length,
                     **places,
                     "meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0})
        first += length
    (folder / "meta/episodes/chunk-000").mkdir(parents=True)
    (folder / "data/chunk-000").mkdir(parents=True)
    pq.write_table(table(list(enumerate(lengths)), 0), folder / data.format(chunk_index=0, file_index=0))
    for number, part in enumerate((rows[:2], rows[2:])):  # the table of episodes is in several files too
        pq.write_table(pa.Table.from_pylist(part),
                       folder / f"meta/episodes/chunk-000/file-{number:03d}.parquet")
    # a pandas table without a name of its index
    tasks = pa.table({"task_index": [0, 1], "__index_level_0__": list(TASKS)})
    pandas = {"index_columns": ["__index_level_0__"], "column_indexes": [], "columns": []}
    pq.write_table(tasks.replace_schema_metadata({"pandas": json.dumps(pandas)}),
                   folder / "meta/tasks.parquet")
    for camera in cameras:
        for number, part in enumerate((range(2), range(2, len(lengths)))):
            write_video(folder / video.format(video_key=camera, chunk_index=0, file_index=number),
                        [grey(camera, n, i) for n in part for i in range(lengths[n])], codec)
    fields = info("v3.0", cameras, list(names) if names else None, lengths, data_path=data, video_path=video)
    (folder / "meta/info.json").write_text(json.dumps(fields))
    return folder


def write_v2(folder, *, cameras=(FRONT,), names=("forward", "strafe", "turn"), codec="libx264",
             lengths=LENGTHS):
    """v2.1: every episode has files of its own, and the tables of meta/ are JSON lines."""
    data = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    video = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    (folder / "meta").mkdir(parents=True)
    (folder / "data/chunk-000").mkdir(parents=True)
    lines = []
    for n, length in enumerate(lengths):
        where = {"episode_chunk": 0, "episode_index": n}
        pq.write_table(table([(n, length)], sum(lengths[:n])), folder / data.format(**where))
        for camera in cameras:
            write_video(folder / video.format(video_key=camera, **where),
                        [grey(camera, n, i) for i in range(length)], codec)
        lines.append({"episode_index": n, "tasks": [TASKS[n % 2]], "length": length})
    (folder / "meta/episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "meta/tasks.jsonl").write_text("".join(
        json.dumps({"task_index": i, "task": task}) + "\n" for i, task in enumerate(TASKS)))
    fields = info("v2.1", cameras, list(names) if names else None, lengths, data_path=data, video_path=video)
    (folder / "meta/info.json").write_text(json.dumps(fields))
    return folder
