"""The same pictures as a folder, as tar shards in WebDataset form and as Parquet, for tests.

`data` is the bytes and the label of each picture by name.
"""

import io
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq


def suffix(name):
    return ".jpg" if name.startswith("a") else ".png"


def as_folder(root, data):
    for name, (content, label) in data.items():
        (root / label).mkdir(parents=True, exist_ok=True)
        (root / label / (name + suffix(name))).write_bytes(content)
    (root / "notes.txt").write_text("no picture")
    return root


def as_tars(root, data, *, label_in, suffix=suffix):
    root.mkdir(parents=True)
    names = list(data)
    for number, part in enumerate((names[:7], names[7:])):
        with tarfile.open(root / f"shard-{number}.tar", "w") as archive:
            for name in part:
                content, label = data[name]
                said = label.encode() if label_in == "cls" else json.dumps({"label": label}).encode()
                for ending, value in ((suffix(name), content), ("." + label_in, said)):
                    info = tarfile.TarInfo(f"{name}{ending}")
                    info.size = len(value)
                    archive.addfile(info, io.BytesIO(value))
    return root


def as_parquet(root, data, *, struct):
    root.mkdir(parents=True)
    cells = [{"bytes": content, "path": name} if struct else content for name, (content, _) in data.items()]
    names = sorted({label for _, label in data.values()})
    numbers = [names.index(label) for _, label in data.values()]
    features = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    table = pa.table({"image": cells, "label": numbers}).replace_schema_metadata(
        {"huggingface": json.dumps(features)}
    )
    pq.write_table(table, root / "part-0.parquet", row_group_size=5)
    return root
